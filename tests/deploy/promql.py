"""Which metrics and labels an expression of PromQL names. It reads what our rules and panels use of the language, no more."""

import re

TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*")|(?P<range>\[[^\]]*\])|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)"""
    r"""|(?P<number>\d[\d.eE]*\w*)|(?P<mark>=~|!~|!=|>=|<=|==|[-{}(),=<>+*/^%])"""
)
WORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "bool", "offset", "inf", "nan"}
WORDS |= {"sum", "max", "min", "avg", "count", "topk", "bottomk", "stddev", "quantile", "group"}
LABEL_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}


def tokens(expression):
    return [(match.lastgroup, match[0]) for match in TOKEN.finditer(expression)]


def read(expression):
    """({metric: labels that are matched}, labels that are grouped or joined by)."""
    metrics, lists = {}, set()
    found = tokens(expression)
    at = 0
    while at < len(found):
        kind, word = found[at]
        after = found[at + 1][1] if at + 1 < len(found) else ""
        if kind == "name" and word in LABEL_LISTS and after == "(":
            end = found.index(("mark", ")"), at)
            lists |= {name for kind, name in found[at:end] if kind == "name"} - {word}
            at = end
        elif kind == "name" and word not in WORDS and after != "(":
            labels = metrics.setdefault(word, set())
            if after == "{":
                end = found.index(("mark", "}"), at)
                inside = found[at + 2 : end]
                labels |= {name for (kind, name), (_, mark) in zip(inside, inside[1:]) if kind == "name" and mark in ("=", "!=", "=~", "!~")}
                at = end
        at += 1
    return metrics, lists
