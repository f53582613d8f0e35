"""Rules of YAML: what people write and YAML reads as something else."""

from __future__ import annotations

from schemas.rules import Rule


def route_text(body: str, where: str = "") -> str:
    condition = f"\n    where: {where}" if where else ""
    return f"routes:\n  - event: billing.InvoicePaid{condition}\n    action: message.post\n    body: {body}"


_GOOD = route_text('{channel: "#paid", text: "{{ data.invoice_id }} is paid"}')

YAML_RULES: tuple[Rule, ...] = (
    Rule(
        id="yaml-syntax",
        means="The text is not YAML.",
        why="Nothing can be said about what cannot be read; the sentence is the parser's own.",
        breaks="owner: 'team-finance",
        mend="owner: 'team-finance'",
        frame="part",
    ),
    Rule(
        id="yaml-braces",
        means="A value begins with '{{' and has no quotes around it.",
        why="YAML reads a brace as the beginning of a mapping.",
        breaks=route_text('{channel: "#paid", text: {{ data.invoice_id }}}'),
        mend=route_text('{channel: "#paid", text: "{{ data.invoice_id }}"}'),
        frame="part",
    ),
    Rule(
        id="yaml-comment",
        means="A '#' with a letter behind it makes the rest of the line a comment.",
        why="The channel '#paid' would be empty, and nobody would see why.",
        breaks=route_text("\n      channel: #paid\n      text: Paid."),
        mend=route_text('\n      channel: "#paid"\n      text: Paid.'),
        frame="part",
    ),
    Rule(
        id="yaml-quotes",
        means="A value begins with a quote, and something stands behind its end.",
        why="YAML ends the value at the second quote.",
        breaks=route_text('{channel: "#paid", text: Paid.}', "'EUR' == data.currency"),
        mend=route_text('{channel: "#paid", text: Paid.}', "\"'EUR' == data.currency\""),
        frame="part",
    ),
    Rule(
        id="yaml-colon",
        means="A value has a colon with a blank behind it, or the indentation is off.",
        why="YAML reads a new name there.",
        breaks="description: Finance: who has paid.",
        mend='description: "Finance: who has paid."',
        frame="part",
    ),
    Rule(
        id="yaml-start",
        means="A value begins with a sign that YAML keeps for itself (@ ` %).",
        why="No value can begin with it.",
        breaks="owner: @finance",
        mend='owner: "@finance"',
        frame="part",
    ),
    Rule(
        id="yaml-tab",
        means="A line is indented by a tab.",
        why="Nobody agrees on how wide a tab is; YAML does not allow it.",
        breaks="personal_data:\n\tpurpose: To be paid.",
        mend="personal_data:\n  purpose: To be paid.\n  allow: [email]",
        frame="part",
    ),
    Rule(
        id="yaml-word",
        means="A word or number that readers of YAML understand differently: yes, no, on, off, 012, 1e3, 12:30.",
        why="To some, 'no' is false and 12:30:45 is 45045.",
        breaks=route_text('{channel: "#paid", text: no}'),
        mend=route_text('{channel: "#paid", text: "no"}'),
        frame="part",
    ),
    Rule(
        id="yaml-duplicate",
        means="A name stands twice in one mapping.",
        why="One of them would win in silence.",
        breaks="owner: team-finance\nowner: team-sales",
        mend="owner: team-finance",
        frame="part",
    ),
    Rule(
        id="yaml-alias",
        means="The file uses anchors (&) or aliases (*).",
        why="A few lines of them stand for gigabytes, and a reader has to look elsewhere for what a line says.",
        breaks="owner: &team team-finance",
        mend="owner: team-finance",
        frame="part",
    ),
    Rule(
        id="yaml-tag",
        means="A value begins with '!'.",
        why="It is a tag in YAML, never a negation.",
        breaks=route_text('{channel: "#paid", text: Paid.}', "!data.reference"),
        mend=route_text('{channel: "#paid", text: Paid.}', "not data.reference"),
        frame="part",
    ),
    Rule(
        id="yaml-key",
        means="A name is no text.",
        why="Names of fields are texts.",
        breaks="? [owner]\n: team-finance",
        mend="owner: team-finance",
        frame="part",
    ),
    Rule(
        id="yaml-documents",
        means="A second document begins ('---').",
        why="One file is one subscription; its name is the file's.",
        breaks=f"{_GOOD}\n---\n{_GOOD}",
        mend=_GOOD,
        frame="part",
    ),
    Rule(
        id="yaml-depth",
        means="The file is nested more than 20 levels deep.",
        why="Nothing here needs it, and depth is what parsers die of.",
        breaks=route_text('{channel: "#paid", text: Paid., blocks: ' + "[" * 20 + "]" * 20 + "}"),
        mend=_GOOD,
        frame="part",
    ),
    Rule(
        id="yaml-size",
        means="The file is longer than 256 kB, or has more than 50,000 values or 5,000 opening brackets.",
        why="A hundred kilobytes of brackets keep a YAML parser busy for ten seconds.",
        breaks="The file was generated, with 30,000 routes.",
        mend="Divide it, or say it in fewer routes with expressions.",
        frame="situation",
    ),
    Rule(
        id="yaml-encoding",
        means="The file is not UTF-8, or holds control characters.",
        why="It would be read as other letters than were written.",
        breaks="The file was saved as UTF-16 or Latin-1.",
        mend="Save it as UTF-8.",
        frame="situation",
    ),
)
