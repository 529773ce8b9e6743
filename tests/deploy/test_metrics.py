"""Names of metrics, in four places: the sources, what running daemons answer, docs/metrics.md, and all of deploy/ that uses them."""

import json
import pathlib
import re
import tempfile
import unittest
import urllib.request

import daemons
import promql
from objects import DEPLOY, ROOT, documents, need, objects, run, tool

DOC = ROOT / "docs" / "metrics.md"
SUFFIXES = ("_bucket", "_sum", "_count")
# What Prometheus and the ServiceMonitors add to every series.
TARGET = {"job", "instance", "namespace", "pod", "service", "container", "endpoint", "node", "release"}
OURS = re.compile(r"(?:dwcp|consensus|http|otlp|reconcile|member|audit|history|certificates|federation)_[a-z_]+[a-z]|queue_depth|active_connections")
SOURCES = ("daemons", "consensus-core", "dwcp-core", "dwcp-ebpf")


def documented():
    """{daemon: {metric: (kind, labels)}} of docs/metrics.md."""
    found, daemon = {}, None
    for line in DOC.read_text().splitlines():
        if line.startswith("## "):
            daemon = line[3:]
        elif line.startswith("| `"):
            name, kind, labels = [cell.strip() for cell in line.strip("|").split("|")[:3]]
            found.setdefault(daemon, {})[name.strip("`")] = kind, set(re.findall(r"`(\w+)`", labels))
    return found


def known():
    """{series: labels} of everything that may be named: ours, others', and what is recorded."""
    found = {}
    for metrics in documented().values():
        for name, (kind, labels) in metrics.items():
            names = [name + suffix for suffix in SUFFIXES] if kind == "histogram" else [name]
            found |= {each: labels | ({"le"} if each.endswith("_bucket") else set()) for each in names}
    for metrics in documents((DEPLOY / "monitoring" / "foreign-metrics.yaml").read_text())[0].values():
        found |= {name: set(labels) for name, labels in metrics.items()}
    for expression, record in expressions():
        if record:
            found[record] = promql.read(expression)[1]
    return found


def expressions():
    """(expression, what it is recorded as or None) of all rules, panels and autoscalers."""
    for path in (DEPLOY / "monitoring" / "rules").glob("*.yaml"):
        for group in documents(path.read_text())[0]["groups"]:
            for rule in group["rules"]:
                yield rule["expr"], rule.get("record")
    for path in (DEPLOY / "monitoring" / "dashboards").glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield target["expr"], None
    for _, thing in objects():
        for trigger in thing.get("spec", {}).get("triggers", []) if thing["kind"] == "ScaledObject" else []:
            if trigger["type"] == "prometheus":
                yield trigger["metadata"]["query"], None
        for metric in thing.get("spec", {}).get("metrics", []) if thing["kind"] == "AnalysisTemplate" else []:
            if "prometheus" in metric["provider"]:
                yield metric["provider"]["prometheus"]["query"], None
    for rule in adapter_rules():
        words = {"<<.Series>>": rule["series"], "<<.LabelMatchers>>": 'namespace="n"', "<<.GroupBy>>": "pod"}
        query = rule["metricsQuery"]
        for word, stands_for in words.items():
            query = query.replace(word, stands_for)
        yield query, None


def adapter_rules():
    path = DEPLOY / "autoscaling" / "prometheus-adapter-values.yaml"
    rules = documents(path.read_text())[0]["rules"] if path.exists() else {"custom": []}
    for rule in rules["custom"]:
        name = re.match(r"\w+", rule["seriesQuery"])[0]
        yield rule | {"series": name}


def in_sources(folder):
    """Every name that is given to the metrics facade below a folder, in the files that use it."""
    found = set()
    for path in (ROOT / folder).rglob("*.rs"):
        text = path.read_text().split("\n#[cfg(test)]\nmod ")[0]
        if "tests" in path.parts or not re.search(r"\b(counter|gauge|histogram)!\(", text):
            continue
        found |= {name for name in re.findall(r'"([a-z_]+)"', text) if OURS.fullmatch(name)}
    return found


def unknown(expression, series):
    """What an expression names and nobody exports: metrics, else labels."""
    metrics, lists = promql.read(expression)
    if not set(metrics) <= set(series):
        return sorted(set(metrics) - set(series))
    wrong = {f"{name}{{{each}}}" for name, labels in metrics.items() for each in labels - series[name] - TARGET}
    return sorted(wrong | (lists - set().union(*(series[name] for name in metrics)) - TARGET))


class Names(unittest.TestCase):
    def test_the_sources_and_the_page_name_the_same(self):
        page = {name for metrics in documented().values() for name in metrics}
        self.assertEqual(page, set().union(*map(in_sources, SOURCES)))

    def test_other_pages_name_no_others(self):
        names = {name for metrics in documented().values() for name in metrics}
        for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
            for name in re.findall(r"`((?:dwcp|consensus)_[a-z_]+)(?:\{[^}]*\})?`", path.read_text()):
                with self.subTest(path.name, metric=name):
                    self.assertTrue(name in names or any(each.startswith(name) for each in names) or name == "dwcp_core")

    def test_everything_that_is_named_is_exported(self):
        series = known()
        for expression, _ in expressions():
            with self.subTest(expression):
                self.assertEqual(unknown(expression, series), [])

    def test_a_wrong_name_is_found(self):
        series = known()
        right = 'sum by (route) (rate(http_requests_total{status="500"}[5m]))'
        self.assertEqual(unknown(right, series), [])
        for old, new in (("requests_total", "request_total"), ("status=", "code="), ("(route)", "(path)"), ("http_", "https_")):
            self.assertEqual(len(unknown(right.replace(old, new), series)), 1, new)

    def test_the_autoscaler_has_all_its_metrics(self):
        named = {rule["name"]["as"] for rule in adapter_rules()}
        for _, thing in objects():
            for metric in thing["spec"]["metrics"] if thing["kind"] == "HorizontalPodAutoscaler" else []:
                kind = metric["type"].lower()
                if kind != "resource":
                    self.assertIn(metric[kind]["metric"]["name"], named)

    def test_prometheus_reads_every_expression(self):
        promtool = need(self, "promtool")
        rules = [{"record": f"r{at}", "expr": expression} for at, (expression, _) in enumerate(expressions())]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            json.dump({"groups": [{"name": "all", "rules": rules}]}, file)
            file.flush()
            run(promtool, "check", "rules", file.name)

    def test_expressions_are_read(self):
        self.assertEqual(
            promql.read('sum by (le, x) (rate(a_bucket{b="{c}", d!~"e"}[5m])) / on (n) group_left () max(f:g) > 0.5'),
            ({"a_bucket": {"b", "d"}, "f:g": set()}, {"le", "x", "n"}),
        )


class Running(unittest.TestCase):
    """Daemons on this machine, asked for their metrics."""

    def test_what_daemons_export_is_documented(self):
        programs = {name: tool(f"novacron-{name}") for name in ("consensus", "api", "dwcp")}
        if not all(programs.values()):
            self.skipTest(f"there are no daemons (variable BIN): {[name for name, path in programs.items() if not path]}")
        pages, unseen = documented(), []
        with tempfile.TemporaryDirectory() as folder:
            for daemon, seen in scraped(programs, pathlib.Path(folder)).items():
                page = pages[f"novacron-{daemon}"]
                # A member speaks DWCP with others, too.
                beside = pages["novacron-dwcp"] if daemon != "dwcp" else {}
                for name, (kind, labels) in seen.items():
                    with self.subTest(daemon, metric=name):
                        self.assertIn(name, page | beside)
                        self.assertEqual(kind, (page | beside)[name][0])
                        self.assertLessEqual(labels, (page | beside)[name][1])
                unseen += sorted(set(page) - set(seen))
        print(f"documented, and not to be seen on an idle machine: {unseen}")


def scraped(programs, folder):
    """{daemon: {metric: (kind, labels)}} of a member, a replica of the API and two agents."""
    store = daemons.free(11)
    api, agents, metrics = store + 2, store + 3, store + 7
    commands = {
        "consensus": daemons.member(programs["consensus"], folder, store),
        "api": daemons.api(programs["api"], folder, store, api),
    }
    for at in (1, 2):
        commands[f"dwcp{at}"] = [
            programs["dwcp"], f"--node-id=n{at}", f"--region=r{at}", f"--listen=127.0.0.1:{agents + at - 1}",
            f"--datagrams-listen=127.0.0.1:{agents + at + 1}", f"--discovery-store=http://127.0.0.1:{store}", "--discovery-interval=1s",
            *(f"--{key}={folder}/{key}-{at}" for key in ("control-socket", "node-tune-state", "node-mtu-state", "tunnels-state")),
        ]
    ports = {name: metrics + at for at, name in enumerate(commands)}
    commands = {name: [*command, f"--metrics-listen=127.0.0.1:{ports[name]}"] for name, command in commands.items()}

    def told():
        ask(f"http://127.0.0.1:{api}/api/v1/health")
        texts = {name: ask(f"http://127.0.0.1:{port}/metrics") for name, port in ports.items()}
        return "dwcp_path_rtt_seconds{" in texts["dwcp1"] and "http_requests_total{" in texts["api"] and texts

    with daemons.running(commands, folder, told) as texts:
        return {name.rstrip("1"): read(text) for name, text in texts.items() if name != "dwcp2"}


def ask(url):
    try:
        return urllib.request.urlopen(url, timeout=5).read().decode()
    except OSError:
        return ""


def read(text):
    """Prometheus' text."""
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))
    found = {name: (kind, set()) for name, kind in kinds.items()}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", text, re.M):
        base = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.removesuffix(suffix) in kinds), name)
        found[base][1].update(re.findall(r'(\w+)="', labels))
        found[base][1].discard("le")
    return found
