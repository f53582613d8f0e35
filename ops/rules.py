"""All rules, by the kind of file they are about, and the rules of backbone.toml; see ``schemas.rules``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from consumers.rules import SUBSCRIPTION_RULES
from schemas.errors import NotFoundError
from schemas.findings import did_you_mean
from schemas.rules import CONTRACT_RULES, Rule

GOOD_PROJECT: Final = """[project]
name = "acme"
schemas = "schemas/events"
subscriptions = "consumers/subscriptions"
"""
"""What examples of the frame ``part`` are put behind, where they have no [project]."""

_SLACK = '[connections.slack]\nconnector = "slack"\n'

PROJECT_RULES: tuple[Rule, ...] = (
    Rule(
        id="toml-unreadable",
        means="backbone.toml cannot be read.",
        why="Nothing here works without it.",
        breaks="The file belongs to another user.",
        mend="Make it readable for whoever runs backbone.",
        frame="situation",
    ),
    Rule(
        id="toml-syntax",
        means="backbone.toml is not TOML, or not UTF-8.",
        why="Nothing can be said about what cannot be read; line and column are the parser's.",
        breaks='[project]\nname = "acme',
        mend=GOOD_PROJECT,
        frame="file",
    ),
    Rule(
        id="toml-size",
        means="backbone.toml is longer than 256 kB, or nested more than 20 levels deep.",
        why="A project file is short; a key of a hundred thousand parts keeps the parser busy for hours.",
        breaks="[contexts.prod.kafka]\n" + ".".join("abcdefghijklmnopqrstuvw") + " = 1",
        mend="[contexts.prod.kafka]\nsocket.timeout.ms = 9000",
        frame="part",
    ),
    Rule(
        id="missing-setting",
        means="A setting that is needed is not there.",
        why="There is no default that would be right; the sentence says what it is for.",
        breaks='[connections.slack]\nregion = "US"',
        mend=_SLACK + 'region = "US"',
        frame="part",
        in_editor=True,
    ),
    Rule(
        id="unknown-setting",
        means="There is no setting of this name here.",
        why="A misspelt setting would have no effect, and be found in production.",
        breaks="[contexts.prod]\nproductoin = true",
        mend="[contexts.prod]\nproduction = true",
        frame="part",
        in_editor=True,
    ),
    Rule(
        id="bad-setting",
        means="A setting has a value that it cannot have: another type, out of its bounds, not of its form.",
        why="The whole file is checked at the start, so that nothing fails at the first use.",
        breaks="[contexts.prod]\ntopics.partitions = 0",
        mend="[contexts.prod]\ntopics.partitions = 12",
        frame="part",
        in_editor=True,
    ),
    Rule(
        id="pinned-setting",
        means="A setting of librdkafka is fixed by the backbone.",
        why="Guarantees depend on it: with acks = 1, what is acknowledged can be lost.",
        breaks="[contexts.prod.kafka]\nacks = 1",
        mend='[contexts.prod.kafka]\nbootstrap.servers = "k1.acme.example:9093"',
        frame="part",
        in_editor=True,
    ),
    Rule(
        id="plain-credential",
        means="A credential stands in the file.",
        why="The file is committed, shown and shared; only a reference to the credential may stand in it.",
        breaks='[contexts.prod.kafka]\nsasl.password = "correct horse"',
        mend='[contexts.prod.kafka]\nsasl.password = "env:KAFKA_PASSWORD"',
        frame="part",
        in_editor=True,
    ),
    Rule(
        id="unresolved-reference",
        means="What a reference names is not there: the variable, the file, or a text in the secret of the vault.",
        why="References are looked up when they are needed, where the command or worker runs.",
        breaks='kafka.sasl.password = "env:KAFKA_PASSWORD", and the variable is not set.',
        mend="Set the variable, or write the credential into the file that is named.",
        frame="situation",
    ),
    Rule(
        id="plaintext",
        means="Kafka, the registry or the vault would be talked to without TLS beyond this machine.",
        why="Whoever sits on the way reads the events and the credentials; this machine's own addresses are no way.",
        breaks='kafka.bootstrap.servers = "k1.acme.example:9092", and no security.protocol: the default is plaintext.',
        mend='kafka.security.protocol = "SSL" or "SASL_SSL", https:// in addresses; or allow_plaintext = true in '
        "the context, where the network is your own.",
        frame="situation",
    ),
    Rule(
        id="no-credentials",
        means="A connection has no table in this context.",
        why="It never borrows the credentials of another context: a test would write into production.",
        breaks="[connections.slack] is there, [contexts.prod.connections.slack] is not.",
        mend='[contexts.prod.connections.slack] with token = "env:SLACK_TOKEN".',
        frame="situation",
    ),
    Rule(
        id="unknown-connection",
        means="A context names a connection that the project does not have.",
        why="It is a misspelt one: its credentials would never be used.",
        breaks=_SLACK + '[contexts.prod.connections.slak]\ntoken = "env:SLACK_TOKEN"',
        mend=_SLACK + '[contexts.prod.connections.slack]\ntoken = "env:SLACK_TOKEN"',
        frame="part",
    ),
    Rule(
        id="reserved-connection",
        means="A connection is called 'ledger'.",
        why="The backbone's own, which keeps the receipts, is called so.",
        breaks='[connections.ledger]\nconnector = "sql"',
        mend='[connections.books]\nconnector = "sql"',
        frame="part",
        in_editor=True,
    ),
    Rule(
        id="unknown-connector",
        means="No installed package brings a connector of this name.",
        why="Connectors are found by their entry point; the package has to be installed where this runs.",
        breaks='[connections.chat]\nconnector = "slak"',
        mend='[connections.chat]\nconnector = "slack"',
        frame="part",
        in_editor=True,
    ),
    Rule(
        id="stale",
        means="A JSON Schema for editors is not what the project says.",
        why="The editor would mark what is right, and complete what is gone.",
        breaks="An event was added, and the schemas were not written again.",
        mend="Write them: backbone editor",
        frame="situation",
    ),
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file with its rules. ``command`` checks it; ``language`` is that of its examples."""

    title: str
    command: str
    language: str
    rules: tuple[Rule, ...]


KINDS: tuple[Kind, ...] = (
    Kind("Contracts", "backbone schema check", "json", CONTRACT_RULES),
    Kind("Subscriptions", "backbone subscription check", "yaml", SUBSCRIPTION_RULES),
    Kind("The project file", "backbone doctor", "toml", PROJECT_RULES),
)

RULES: Mapping[str, Rule] = {rule.id: rule for kind in KINDS for rule in kind.rules}

PAGE: Final = "ops/RULES.md"


def page_of(rule: str) -> str:
    """Where the documentation speaks of a rule: file and anchor."""
    return f"{PAGE}#{rule}"


def rule_of(name: str) -> Rule:
    """The rule of that id. Raises NotFoundError with a suggestion."""
    if name not in RULES:
        raise NotFoundError(f"There is no rule '{name[:60]}'.{did_you_mean(name, RULES)} See: backbone rule list")
    return RULES[name]


def kind_of(rule: Rule) -> Kind:
    return next(kind for kind in KINDS if rule in kind.rules)
