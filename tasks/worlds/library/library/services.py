"""The library's services: what members want, how they say it, which calls serve it, and which rules of the policy forbid it.

Phrases, problems, the scripted agent and the tests of the policy follow from them (`tasks.worlds.api.scripts.services`). The agent
teaches the first model, so it has to be right: `cairn world check` plays it against the scripted human. Reserved sentences belong to
test problems.
"""

from __future__ import annotations

from tasks.worlds.api.scripts.phrases import Wish
from tasks.worlds.api.scripts.services import Rule, Service, Services

TITLES = (
    "Blue Lake", "Cold Harbour", "Dark Forest", "Empty Street", "First Snow", "Green Island", "High Tide", "Iron Bridge",
    "Long Winter", "Old Mill", "Quiet House", "Red Mountain",
)  # fmt: skip

MOST_RENEWALS, MOST_WEEKS = 2, 3
"""R6 and R7."""

# --- how it is said ---

RENEW = Wish(
    open=(
        "Please renew loan {loan_id} for {weeks}.",
        "I want to renew loan {loan_id} for {weeks}.",
        "Can I keep loan {loan_id} for {weeks} more?",
        "I would like {weeks} more for loan {loan_id}.",
        "Loan {loan_id}: {weeks} more, please.",
        "My book is not finished, give me {weeks} more for loan {loan_id}.",
        "Loan {loan_id} should run for {weeks} more.",
    ),
    reserved=("Can you renew loan {loan_id} for {weeks}?", "I need loan {loan_id} for {weeks} more."),
    vague=("I want to renew a loan for {weeks}.", "Can I keep a book for {weeks} more?"),
    task="renew loan {loan_id} for {weeks}",
    ask="loan_id",
)
PAY = Wish(
    open=(
        "Please take the fee of loan {loan_id} from my account.",
        "I want to pay the fee of loan {loan_id}.",
        "Can I pay what I owe for loan {loan_id}?",
        "I would like to settle the fee of loan {loan_id}.",
        "What do I owe for loan {loan_id}? I want to pay it.",
        "Charge me the fee of loan {loan_id}, please.",
        "The fee of loan {loan_id} can be taken now.",
    ),
    reserved=("Can you settle the fee of loan {loan_id}?", "I am here to pay the fee of loan {loan_id}."),
    vague=("I want to pay the fee of a loan.", "Can I settle what I owe for a book?"),
    task="pay the fee of loan {loan_id} and hear how much it is",
    ask="loan_id",
)
RESERVE = Wish(
    open=(
        "Please reserve {title} for me at {branch}.",
        "I want to reserve {title} and pick it up at {branch}.",
        "Can you reserve {title} at {branch}?",
        "I would like the next copy of {title}, at {branch}.",
        "{title}, please: keep the next copy for me at {branch}.",
        "Set the next copy of {title} aside at {branch}, please.",
        "I will pick {title} up at {branch} when a copy is back.",
    ),
    reserved=("Could I reserve {title} at {branch}?", "Put me down for {title} at {branch}."),
    vague=("I want to reserve a book at {branch}.", "Can you set a book aside at {branch}?"),
    task="reserve {title} and pick it up at {branch}",
    ask="title",
)
STATUS = Wish(
    open=(
        "What is the status of loan {loan_id}?",
        "Is loan {loan_id} overdue?",
        "Tell me how loan {loan_id} stands.",
        "I would like to know the status of loan {loan_id}.",
        "How is loan {loan_id} doing?",
        "Can you look up loan {loan_id} and tell me its status?",
        "Loan {loan_id}: is it out, overdue or returned?",
    ),
    reserved=("How does loan {loan_id} stand?", "I want to hear the status of loan {loan_id}."),
    vague=("What is the status of a loan of mine?", "How is one of my loans doing?"),
    task="know the status of loan {loan_id}",
    ask="loan_id",
)
COPIES = Wish(
    open=(
        "How many copies of {title} are free?",
        "Is {title} on the shelf, and how many copies?",
        "Tell me how many copies of {title} you have free.",
        "I would like to know how many copies of {title} are free.",
        "{title}: how many copies are on the shelf?",
        "Can you count the free copies of {title}?",
        "Do you have {title}, and how many of it?",
    ),
    reserved=("How many free copies of {title} are there?", "I want to hear how many copies of {title} are left."),
    vague=(),
    task="know how many copies of {title} are free",
)
TROUBLE = Wish(
    open=(
        "The book of loan {loan_id} {trouble}.",
        "I am sorry, the book of loan {loan_id} {trouble}.",
        "There is a problem: loan {loan_id} {trouble}.",
        "Can you help me? Loan {loan_id} {trouble}.",
        "Loan {loan_id}: the book {trouble}.",
        "Bad news about loan {loan_id}, it {trouble}.",
        "I have to report a loan: {loan_id} {trouble}.",
        "My book {trouble}, it is loan {loan_id}.",
    ),
    reserved=("I must tell you that loan {loan_id} {trouble}.", "It is about loan {loan_id}, it {trouble}."),
    vague=("A book that I have on loan {trouble}.", "Can you help me? A book of yours {trouble}."),
    task="report that the book of loan {loan_id} {trouble}, and be put through to a person",
    ask="loan_id",
)

# --- what it is ---

SERVICES = Services(
    services={
        "renew": Service(
            RENEW,
            table="loans",
            key="loan_id",
            look="get_loan",
            act="renew_loan",
            slots={"weeks": ("1", "2", "3", "4", "5")},
            types={"weeks": int},
            defaults={"weeks": 2},
            rules=(
                Rule("R5", lambda loan, slots: loan["status"] != "out", "loan {loan_id} is {status}", "{status}"),
                Rule("R6", lambda loan, slots: loan["renewals"] >= MOST_RENEWALS, "a loan can be renewed twice at most", "twice"),
                Rule("R7", lambda loan, slots: int(slots["weeks"]) > MOST_WEEKS, "a renewal is for three weeks at most", "three weeks"),
            ),
            summary="I will renew loan {loan_id} for {weeks} weeks.",
        ),
        "pay": Service(
            PAY,
            table="loans",
            key="loan_id",
            look="get_loan",
            act="pay_fee",
            fits=lambda loan: bool(loan["fee"]),
            summary="I will take the fee of loan {loan_id} from your account.",
            report="Done, the fee was {paid}.",
            output="{fee}",
        ),
        "reserve": Service(
            RESERVE,
            table="titles",
            key="title",
            look="get_title",
            act="reserve_title",
            slots={"branch": ("north", "south")},
            owned=False,
            person="user_id",
            rules=(Rule("R8", lambda title, slots: title["free"] > 0, "{title} is free on the shelf", "free on the shelf"),),
            summary="I will reserve {title} at the {branch} branch.",
        ),
        "status": Service(
            STATUS, table="loans", key="loan_id", look="get_loan", report="Loan {loan_id} is {status}.", output="{status}"
        ),
        "copies": Service(
            COPIES,
            table="titles",
            key="title",
            look="get_title",
            owned=False,
            report="The number of free copies is {free}.",
            output="{free}",
        ),
        "trouble": Service(
            TROUBLE,
            table="loans",
            key="loan_id",
            look="get_loan",
            act="transfer_to_human",
            slots={"trouble": ("lost", "damaged")},
            arguments={"reason": "trouble"},
            fits=lambda loan: bool(loan["status"] != "returned"),
        ),
    },
    patterns={"loan_id": r"L\d+"},
    lexicon={
        "weeks": {"1": "one week", "2": "two weeks", "3": "three weeks", "4": "four weeks", "5": "five weeks"},
        "title": {title: title for title in TITLES},
        "branch": {"north": "the north branch", "south": "the south branch"},
        "trouble": {"lost": "is lost", "damaged": "got wet"},
    },
    answers={"title": ("It is {title}.", "{title}.", "The book is {title}.")},
    asks={"title": ("which title", "which book")},
    own="R2",
    hand_overs=("trouble",),
    held_out_rules=("R6",),
    held_out=(frozenset({"pay_fee", "reserve_title"}),),
)
"""patterns: what an id looks like. lexicon: what stands for a value of the API. held_out: what test problems alone have."""
