"""What Prometheus and prometheus-adapter are told in a test, as ConfigMaps: what the Prometheus operator makes of the ServiceMonitors of deploy/, and the
adapter's chart of its values. `metrics.py DEPLOY DISCOVERY`, which is a URL (discovery.py)."""

import pathlib
import sys

import yaml

POD = {"namespace": "namespace", "service": "service_name", "pod": "pod_name"}


def meta(name):
    return "__meta_kubernetes_" + "".join(c if c.isalnum() else "_" for c in name)


def scrape(monitor, discovery):
    """A job of Prometheus, of the one endpoint that our monitors have."""
    spec, name = monitor["spec"], monitor["metadata"]["name"]
    endpoint = spec["endpoints"][0]
    keep = [(f"service_label_{label}", value) for label, value in spec["selector"]["matchLabels"].items()] + [("endpoint_port_name", endpoint["port"])]
    labels = [*POD.items(), ("job", f"service_label_{spec['jobLabel']}")]
    return {
        "job_name": name,
        "scrape_interval": endpoint["interval"],
        "scrape_timeout": endpoint["scrapeTimeout"],
        "sample_limit": spec["sampleLimit"],
        "http_sd_configs": [{"url": discovery, "refresh_interval": "5s"}],
        "relabel_configs": [
            *({"action": "keep", "source_labels": [meta(label)], "regex": value} for label, value in keep),
            *({"source_labels": [meta(label)], "target_label": target} for target, label in labels),
            *({"source_labels": rule["sourceLabels"], "target_label": rule["targetLabel"]} for rule in endpoint["relabelings"]),
        ],
    }


def config_map(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "monitoring"}, "data": data}


def main():
    deploy = pathlib.Path(sys.argv[1])
    monitors = yaml.safe_load_all((deploy / "monitoring" / "service-monitors.yaml").read_text())
    adapter = yaml.safe_load((deploy / "autoscaling" / "prometheus-adapter-values.yaml").read_text())
    assert adapter["rules"]["default"] is False, "the chart would add rules"
    prometheus = {"scrape_configs": [scrape(monitor, sys.argv[2]) for monitor in monitors]}
    print(yaml.safe_dump_all([
        config_map("prometheus", **{"prometheus.yaml": yaml.safe_dump(prometheus)}),
        config_map("adapter", url=f"{adapter['prometheus']['url']}:{adapter['prometheus']['port']}",
                   **{"config.yaml": yaml.safe_dump({"rules": adapter["rules"]["custom"]})}),
    ]))


if __name__ == "__main__":
    main()
