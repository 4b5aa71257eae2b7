"""What a backend needs on top to play authors and judges, under the backend's name: a dep of the stages that ask them alone."""
