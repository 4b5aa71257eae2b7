"""The first questions to a model server, before a stage pays for thousands: who answers, and does it answer as its roles need it?"""
