"""The Helm chart: it renders, Kubernetes would take it, the program accepts its configuration, and known mistakes stay out."""

import copy
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from pipeline import settings

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/complaint-radar"
VALUES = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}
KUBERNETES = ("1.27", "1.37")
COMPONENTS = ("connect", "score", "detect", "store", "exporter")
SINGLE = ("connect", "exporter")
JOBS = ("topics", "migrate")
CONFIG = "/etc/complaint-radar/radar.yaml"
SECRETS = "/var/run/secrets/complaint-radar"

every_values_file = pytest.mark.parametrize("name", list(VALUES))


def pods_of(name: str) -> tuple[str, ...]:
    """Components and jobs that a file in ci makes."""
    return COMPONENTS if name == "mutual-tls" else (*COMPONENTS, *JOBS)


def values_of(name: str, **more: Any) -> dict[str, Any]:
    """The values of a file in ci; `more` goes on top, two levels deep."""
    values = yaml.safe_load(VALUES[name].read_text(encoding="utf-8"))
    for key, value in more.items():
        old = values.get(key)
        values[key] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
    return values


def templates(values: dict[str, Any], chart: Path = CHART, **options: Any) -> dict[str, str]:
    with helm_python.Chart.load(chart) as loaded:
        return loaded.render(values, **{"name": "radar", "namespace": "quality", **options})


def objects(values: dict[str, Any], chart: Path = CHART, **options: Any) -> list[dict[str, Any]]:
    found = []
    for path, text in templates(values, chart, **options).items():
        if not path.endswith(".txt"):
            found += [one for one in yaml.safe_load_all(text) if one]
    return found


@functools.cache
def _rendered(name: str) -> str:
    return json.dumps(objects(values_of(name)))


def rendered(name: str) -> list[dict[str, Any]]:
    return json.loads(_rendered(name))


def only(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in found if one["kind"] == kind]


def named(found: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (one,) = [one for one in only(found, kind) if one["metadata"]["name"] == name]
    return one


def pods(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Component or job: its pod template."""
    owners = [one for one in found if "template" in one.get("spec", {})]
    return {one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"] for one in owners}


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (one,) = pod["spec"]["containers"]
    return one


def environment(pod: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container(pod)["env"]}


def is_hook(one: dict[str, Any]) -> bool:
    return "helm.sh/hook" in one["metadata"].get("annotations", {})


def secret_files(pod: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Path in the pod: Secret and key."""
    return {
        f"{SECRETS}/{item['path']}": (source["secret"]["name"], item["key"])
        for volume in pod["spec"]["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        if "secret" in source
        for item in source["secret"]["items"]
    }


def refused(values: dict[str, Any]) -> str:
    with pytest.raises(helm_python.HelmError) as caught:
        templates(values)
    return str(caught.value)


# It renders, and Kubernetes would take it.


@every_values_file
def test_lint(name: str) -> None:
    report = helm_python.lint(CHART, values_of(name), strict=True)
    assert report["errors"] == []
    assert [one["error"] for one in report["messages"]] == ["icon is recommended"]


@every_values_file
def test_the_schemas_of_kubernetes(name: str) -> None:
    unknown = set()
    for one in rendered(name):
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.SchemaNotFoundError:
                unknown.add(one["kind"])
    assert unknown == ({"ServiceMonitor"} if name == "scram-tls" else set())


@every_values_file
def test_every_component_is_there_with_its_command(name: str) -> None:
    found = pods(rendered(name))
    assert sorted(found) == sorted(pods_of(name))
    for component, pod in found.items():
        stage = ["worker", "--stage", component] if component in ("score", "detect", "store") else [component]
        assert container(pod)["args"] == [*stage, "--config", CONFIG]
        assert "command" not in container(pod)


@every_values_file
def test_names_are_short_enough_and_not_taken_twice(name: str) -> None:
    found = objects(values_of(name), name="a-release-with-a-name-of-fifty-three-characters-12345")
    keys = [(one["kind"], one["metadata"]["name"]) for one in found]
    assert len(set(keys)) == len(keys)
    assert all(len(one) <= 63 for _, one in keys)


def test_a_release_may_be_called_by_a_number() -> None:
    for one in objects(values_of("minimal"), name="123", namespace="456"):
        for version in KUBERNETES:
            kubernetes_validate.validate(one, version, strict=True)


def test_two_releases_in_one_namespace() -> None:
    first, second = (objects(values_of("scram-tls"), name=name) for name in ("one", "two"))
    assert not {(one["kind"], one["metadata"]["name"]) for one in first} & {
        (one["kind"], one["metadata"]["name"]) for one in second
    }


def test_the_minimal_file_is_small() -> None:
    assert len(VALUES["minimal"].read_text(encoding="utf-8").splitlines()) <= 15


def test_versions_are_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == project["version"]
    assert container(pods(rendered("minimal"))["score"])["image"] == f"complaint-radar:{project['version']}"


def test_every_value_is_commented() -> None:
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        leaf = re.match(r"^ *[A-Za-z]+: \S", line) and not re.match(r"^ *(requests|limits): ", line)
        assert not leaf or before.lstrip().startswith("#"), line


def test_the_script_prints_what_is_rendered() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tests/deploy/render.py", VALUES["minimal"], VALUES["oauth"]],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONUTF8": "1"},
    )
    assert "kind: Deployment" in done.stdout
    assert "broker.example.com:9093" in done.stdout
    assert "What to look at next" in done.stdout


def test_notes_say_what_is_weak() -> None:
    notes = templates(values_of("minimal"))["complaint-radar/templates/NOTES.txt"]
    for words in (
        "nothing is read",
        "Kafka is spoken to without TLS",
        "ClickHouse is spoken to",
        "detect has one replica",
    ):
        assert words in notes
    strong = templates(values_of("scram-tls", store={"replicas": 2}))["complaint-radar/templates/NOTES.txt"]
    assert "NOTE" not in strong


# The program accepts its configuration.


@pytest.mark.parametrize(("name", "component"), [(one, pod) for one in VALUES for pod in pods_of(one)])
def test_the_program_accepts_the_configuration(
    name: str, component: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = rendered(name)
    pod = pods(found)[component]
    for variable in [one for one in os.environ if one.startswith("RADAR_")]:
        monkeypatch.delenv(variable)
    for variable, value in environment(pod).items():
        monkeypatch.setenv(variable, value if isinstance(value, str) else "out of a Secret")
    (mounted,) = [one for one in pod["spec"]["volumes"] if one["name"] == "config"]
    config_map = mounted["projected"]["sources"][0]["configMap"]["name"]
    text = named(found, "ConfigMap", config_map)["data"]["radar.yaml"].replace(SECRETS, str(tmp_path))
    for path, (secret, key) in secret_files(pod).items():
        file = tmp_path / Path(path).relative_to(SECRETS)
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{secret}/{key}\n", encoding="utf-8")
    (tmp_path / "radar.yaml").write_text(text, encoding="utf-8")

    loaded = settings.load(tmp_path / "radar.yaml")

    assert loaded.admin == settings.AdminSettings(host="0.0.0.0", port=9464)  # noqa: S104 - in the pod
    assert {"name": "data", "mountPath": str(loaded.data_dir)} in container(pod)["volumeMounts"]
    assert loaded.kafka is not None
    assert loaded.clickhouse is not None
    if component != "migrate" and loaded.kafka.password_file:
        assert settings.password(loaded.kafka) == "kafka-complaint-radar/password"
    # What a process speaks to, it has all the files of; and no files of what it does not speak to.
    speaks = {"store": ("kafka", "clickhouse"), "migrate": ("clickhouse",)}.get(component, ("kafka",))
    for section in ("kafka", "clickhouse"):
        for key, value in getattr(loaded, section):
            if key.endswith("_file") and value is not None:
                assert value.exists() == (section in speaks), f"{section}.{key}"


def test_what_the_values_files_say_arrives() -> None:
    written = {
        name: yaml.safe_load(named(rendered(name), "ConfigMap", "radar-complaint-radar")["data"]["radar.yaml"])
        for name in VALUES
    }
    assert written["minimal"] == {
        "data_dir": "/var/lib/complaint-radar",
        "kafka": {"bootstrap_servers": "kafka:9092", "security_protocol": "PLAINTEXT"},
        "clickhouse": {
            "hosts": "clickhouse:9000",
            "database": "default",
            "user": "default",
            "password_file": f"{SECRETS}/clickhouse/password",
        },
    }
    assert written["scram-tls"]["kafka"]["session_timeout"] == "15s"
    assert written["scram-tls"]["kafka"]["ca_file"] == f"{SECRETS}/kafka/ca.crt"
    assert written["scram-tls"]["detection"] == {"step": "1d", "series": 1_000_000}
    assert written["oauth"]["kafka"]["token_file"] == f"{SECRETS}/kafka/token"
    assert written["mutual-tls"]["kafka"]["certificate_file"] == f"{SECRETS}/kafka/tls.crt"
    assert written["mutual-tls"]["kafka"]["key_file"] == f"{SECRETS}/kafka/tls.key"


def test_only_connect_has_the_catalogue_and_the_key_of_pseudonyms() -> None:
    for name, config_map in (("scram-tls", "product-catalogue"), ("oauth", "radar-complaint-radar-catalogue")):
        for component, pod in pods(rendered(name)).items():
            given = environment(pod)
            assert ("RADAR_PSEUDONYM_KEY" in given) == (component == "connect")
            assert ("RADAR_CATALOGUE" in given) == (component == "connect")
            assert (config_map in json.dumps(pod)) == (component == "connect")
    csv = named(rendered("oauth"), "ConfigMap", "radar-complaint-radar-catalogue")["data"]["catalogue.csv"]
    assert "云净W7洗衣机" in csv


def test_a_changed_configuration_replaces_the_pods_that_read_it() -> None:
    before = pods(rendered("minimal"))
    detection = pods(objects(values_of("minimal", config={"detection": {"step": "1d"}})))
    sources = pods(objects(values_of("minimal", config={"sources": [{"name": "new"}]})))
    catalogue = pods(objects(values_of("minimal", catalogue={"csv": "product_id\n"})))
    assert {one for one in COMPONENTS if before[one] != detection[one]} == set(COMPONENTS)
    assert {one for one in COMPONENTS if before[one] != sources[one]} == {"connect"}
    assert {one for one in COMPONENTS if before[one] != catalogue[one]} == {"connect"}


# Every pod: restricted, and alive by what it does itself.


@every_values_file
def test_pod_security_is_restricted(name: str) -> None:
    for component, pod in pods(rendered(name)).items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, component
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        chosen = {key: spec["securityContext"].get(key) for key in ("runAsUser", "runAsGroup", "fsGroup")}
        assert set(chosen.values()) == ({None} if name == "mutual-tls" else {10001})
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & set(spec)
        allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"}
        assert all(set(one) - {"name"} <= {*allowed, "secret"} for one in spec["volumes"])
        assert container(pod)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert all("hostPort" not in port for port in container(pod).get("ports", []))


@every_values_file
def test_nothing_but_data_and_tmp_can_be_written(name: str) -> None:
    for pod in pods(rendered(name)).values():
        writable = {one["name"] for one in container(pod)["volumeMounts"] if not one.get("readOnly")}
        assert writable == {"data", "tmp"}
        empty = {one["name"] for one in pod["spec"]["volumes"] if "sizeLimit" in one.get("emptyDir", {})}
        assert empty == {"data", "tmp"}


@every_values_file
def test_memory_is_bounded_and_promised(name: str) -> None:
    for pod in pods(rendered(name)).values():
        resources = container(pod)["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        assert {"cpu", "ephemeral-storage"} <= set(resources["requests"])
        assert "ephemeral-storage" in resources["limits"]
        assert "cpu" not in resources["limits"]


def test_the_names_of_services_stay_out_of_our_environment() -> None:
    # A Service "radar" would give RADAR_PORT, which the program refuses as a misspelt setting.
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in pods(rendered("minimal")).values())


def test_a_transaction_can_end_before_the_pod_does() -> None:
    for component, pod in pods(rendered("scram-tls")).items():
        assert pod["spec"]["terminationGracePeriodSeconds"] == (60 if component == "detect" else 45)


def test_detect_may_take_long_to_start() -> None:
    for component in COMPONENTS:
        probe = container(pods(rendered("minimal"))[component])["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] == (900 if component == "detect" else 120)


def test_one_process_at_a_time_where_two_would_quarrel() -> None:
    for component in COMPONENTS:
        spec = named(rendered("scram-tls"), "Deployment", f"radar-complaint-radar-{component}")["spec"]
        assert (spec["strategy"]["type"] == "Recreate") == (component in SINGLE)
        assert component not in SINGLE or spec["replicas"] == 1


def test_without_sources_connect_has_no_pod() -> None:
    # It would end with an error, again and again.
    for name, replicas in (("minimal", 0), ("scram-tls", 1)):
        assert named(rendered(name), "Deployment", "radar-complaint-radar-connect")["spec"]["replicas"] == replicas


def test_a_rollout_waits_for_no_pod_that_can_never_be_ready() -> None:
    for replicas, surge in ((1, 1), (11, 1), (12, 0)):
        found = objects(values_of("minimal", score={"replicas": replicas}))
        strategy = named(found, "Deployment", "radar-complaint-radar-score")["spec"]["strategy"]
        assert strategy["rollingUpdate"] == {"maxSurge": surge, "maxUnavailable": 1 - surge}
    found = objects(values_of("minimal", score={"strategy": {"type": "Recreate"}}))
    assert named(found, "Deployment", "radar-complaint-radar-score")["spec"]["strategy"] == {"type": "Recreate"}


def test_services_and_monitors_find_the_pods() -> None:
    found = rendered("scram-tls")
    for component in COMPONENTS:
        service = named(found, "Service", f"radar-complaint-radar-{component}")["spec"]
        assert service["selector"].items() <= pods(found)[component]["metadata"]["labels"].items()
        assert service["ports"][0]["targetPort"] == container(pods(found)[component])["ports"][0]["name"]
        assert container(pods(found)[component])["ports"][0]["containerPort"] == settings.AdminSettings().port
    exporter, stages = sorted(only(found, "ServiceMonitor"), key=lambda one: one["metadata"]["name"])
    assert exporter["spec"]["endpoints"][0]["interval"] == "5s"
    assert stages["spec"]["endpoints"][0]["interval"] == "30s"
    assert exporter["metadata"]["labels"]["release"] == "prometheus"


def test_the_rules_are_those_of_deploy_prometheus() -> None:
    wanted = values_of("minimal", metrics={"prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}}})
    (rule,) = only(objects(wanted), "PrometheusRule")
    shipped = yaml.safe_load((CHART.parents[1] / "prometheus/rules.yaml").read_text(encoding="utf-8"))
    assert rule["spec"]["groups"] == shipped["groups"]


# What is wrong is refused, in words.


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kafka": {"password": "x"}}, "'/kafka/password': value must be '(never here: put the password into a Secret"),
        ({"clickhouse": {"password": "x"}}, "name it in clickhouse.passwordSecret"),
        ({"pseudonymKey": "x"}, "name it in pseudonymKeySecret"),
        ({"config": {"pseudonym_key": "x"}}, "name it in pseudonymKeySecret"),
        ({"config": {"kafka": {"password": "x"}}}, "name it in kafka.passwordSecret"),
        ({"config": {"clickhouse": {"password": "x"}}}, "name it in clickhouse.passwordSecret"),
        (
            {"common": {"extraEnv": [{"name": "RADAR_KAFKA__PASSWORD", "value": "x"}]}},
            "'/common/extraEnv/0/value': value must be '(never here: use valueFrom.secretKeyRef)'",
        ),
        ({"config": {"kafka": {"bootstrap_servers": "a:1"}}}, "(not here: use kafka.bootstrapServers)"),
        ({"config": {"data_dir": "/data"}}, "(set by the chart)"),
        ({"pseudonymKeySecret": {"name": ""}}, "needed: the Secret with the key"),
        ({"pseudonymKeySecret": None}, "missing property 'pseudonymKeySecret'"),
        ({"kafka": {"bootstrapServers": ""}}, "(needed: host:port,host:port)"),
        ({"clickhouse": {"hosts": "a, b"}}, "/clickhouse/hosts"),
        ({"kafka": {"securityProtocol": "SASL_SSL"}}, "(needed with SCRAM and PLAIN: the Secret with the password)"),
        ({"kafka": {"securityProtocol": "SASL_SSL"}}, "(needed with SCRAM and PLAIN: the user)"),
        (
            {"kafka": {"securityProtocol": "SASL_SSL", "saslMechanism": "OAUTHBEARER"}},
            "(needed with OAUTHBEARER: the Secret with the token)",
        ),
        ({"kafka": {"securityProtocol": "TLS"}}, "'/kafka/securityProtocol': value must be one of 'PLAINTEXT'"),
        ({"kafka": {"passwordSecret": {"name": "a"}}}, "(a password is for securityProtocol SASL_SSL"),
        ({"kafka": {"caSecret": {"name": "a"}}}, "(an authority is for securityProtocol SSL or SASL_SSL)"),
        ({"clickhouse": {"caSecret": {"name": "a"}}}, "(an authority is for secure: true)"),
        ({"catalogue": {"csv": "a", "configMap": {"name": "b"}}}, "(either catalogue.configMap or catalogue.csv"),
        ({"score": {"replica": 2}}, "additional properties 'replica' not allowed"),
        ({"scores": {"replicas": 2}}, "additional properties 'scores' not allowed"),
        ({"kafka": {"passwordSecret": {"name": "a", "kye": "b"}}}, "additional properties 'kye' not allowed"),
        ({"score": {"replicas": 13}}, "'/score/replicas': maximum: got 13, want 12"),
        ({"score": {"replicas": "2"}}, "'/score/replicas': got string, want integer"),
        ({"connect": {"replicas": 2}}, "'/connect/replicas': maximum: got 2, want 1"),
        ({"exporter": {"strategy": {"type": "RollingUpdate"}}}, "one process at a time, always Recreate"),
        ({"detect": {"resources": {"limits": {"memory": "1 GB"}}}}, "'/detect/resources/limits/memory': '1 GB'"),
        ({"migrations": {"mode": "hooks"}}, "'/migrations/mode': value must be one of 'hook', 'job', 'none'"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"runAs": {"user": 0}}, "'/runAs/user': minimum"),
    ],
)
def test_refused(wrong: dict[str, Any], said: str) -> None:
    message = refused(values_of("minimal", **wrong))
    assert said in message
    assert "nil pointer" not in message


def test_a_refused_password_is_not_repeated() -> None:
    for wrong in ({"kafka": {"password": "geheim"}}, {"config": {"clickhouse": {"password": "geheim"}}}):
        assert "geheim" not in refused(values_of("minimal", **wrong))


def test_replicas_are_capped_by_the_partitions() -> None:
    topics = yaml.safe_load((ROOT / "schemas/topics.yaml").read_text(encoding="utf-8"))
    for component in ("score", "detect", "store"):
        most = max(one["partitions"] for one in topics.values() if component in one["consumers"])
        found = objects(values_of("minimal", **{component: {"replicas": most}}))
        deployment = named(found, "Deployment", f"radar-complaint-radar-{component}")
        assert deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
        assert f"/{component}/replicas" in refused(values_of("minimal", **{component: {"replicas": most + 1}}))


def test_every_object_of_the_schema_is_strict() -> None:
    free = []

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and "additionalProperties" not in node:
                free.append(path.rpartition("/")[2])
            for key, value in node.items():
                walk(value, f"{path}/{key}")
        elif isinstance(node, list):
            for value in node:
                walk(value, path)

    walk(json.loads((CHART / "values.schema.json").read_text(encoding="utf-8")), "")
    # The program itself judges config; what Kubernetes defines is judged by it.
    assert set(free) == {"config", "kafka", "clickhouse", "affinity", "items", "valueFrom", "strategy"}


# Mistakes that users of comparable charts report.


@every_values_file
def test_mistake_1_secrets_are_only_referred_to(name: str) -> None:
    found = rendered(name)
    assert not only(found, "Secret")
    for pod in pods(found).values():
        for variable, value in environment(pod).items():
            assert not re.search(r"PASSWORD|SECRET|TOKEN|KEY", variable) or "secretKeyRef" in value
        assert not re.search(r"password|secret|token", " ".join(container(pod)["args"]))
    for config_map in only(found, "ConfigMap"):
        for key in re.findall(r"(\w*(?:password|secret|token|key)\w*): \S", config_map["data"].get("radar.yaml", "")):
            assert key.endswith("_file"), key


def test_mistake_2_selectors_outlive_versions(tmp_path: Path) -> None:
    chart = tmp_path / "complaint-radar"
    shutil.copytree(CHART, chart)
    about = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    about |= {"version": "9.9.9", "appVersion": "8.8.8"}
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about), encoding="utf-8")

    def selectors(found: list[dict[str, Any]]) -> list[Any]:
        return [one["spec"]["selector"] for one in found if "selector" in one.get("spec", {})]

    new = objects(values_of("scram-tls"), chart)
    assert selectors(new) == selectors(rendered("scram-tls"))
    for one in only(new, "Deployment"):
        assert set(one["spec"]["selector"]["matchLabels"]) == {
            f"app.kubernetes.io/{key}" for key in ("name", "instance", "component")
        }
        assert one["metadata"]["labels"]["helm.sh/chart"] == "complaint-radar-9.9.9"
    # With a fixed image, a new version of the chart alone replaces no pod.
    assert pods(new) == pods(rendered("scram-tls"))


@every_values_file
def test_mistake_3_two_renders_are_equal(name: str) -> None:
    first = templates(values_of(name), is_install=True, revision=1)
    assert templates(values_of(name), is_install=True, revision=1) == first
    assert templates(values_of(name), is_upgrade=True, is_install=False, revision=7) == first


def test_mistake_3_nothing_random_is_used() -> None:
    for path in (CHART / "templates").iterdir():
        text = path.read_text(encoding="utf-8")
        words = r"\b(lookup|rand\w+|uuidv4|now|gen\w+|derivePassword|htpasswd)\b|Release\.(Is|Revision)|Capabilities"
        assert not re.search(r"\{\{[^}]*(" + words + ")", text), path.name


@pytest.mark.parametrize("name", ["minimal", "scram-tls"])
def test_mistake_4_hooks_need_nothing_that_comes_later(name: str) -> None:
    found = rendered(name)
    hooks = [one for one in found if is_hook(one)]
    assert sorted(one["kind"] for one in hooks) == ["ConfigMap", "Job", "Job", "ServiceAccount"]
    later = {one["metadata"]["name"] for one in found if not is_hook(one)}

    def strings(node: Any) -> list[str]:
        if isinstance(node, dict):
            return [text for value in node.values() for text in strings(value)]
        if isinstance(node, list):
            return [text for value in node for text in strings(value)]
        return [str(node)]

    for job in only(hooks, "Job"):
        assert not later & set(strings(job["spec"]["template"]["spec"]))
    weights = {one["metadata"]["name"]: int(one["metadata"]["annotations"]["helm.sh/hook-weight"]) for one in hooks}
    order = [f"radar-complaint-radar-{suffix}" for suffix in ("hooks", "topics", "migrate")]
    assert sorted(weights, key=weights.__getitem__) == order


def test_mistake_4_a_service_account_of_ones_own_is_taken() -> None:
    found = objects(values_of("minimal", serviceAccount={"create": False, "name": "mine"}))
    assert not only(found, "ServiceAccount")
    assert {pod["spec"]["serviceAccountName"] for pod in pods(found).values()} == {"mine"}


def test_mistake_5_migrations_come_first_and_end_in_time() -> None:
    for job in only(rendered("minimal"), "Job"):
        notes = job["metadata"]["annotations"]
        assert notes["helm.sh/hook"] == "pre-install,pre-upgrade"
        # What failed stays: its log is the reason.
        assert "hook-failed" not in notes["helm.sh/hook-delete-policy"]
        assert "before-hook-creation" in notes["helm.sh/hook-delete-policy"]
        # Below Helm's own five minutes; and the pod before the job, which would delete it with its log.
        assert job["spec"]["activeDeadlineSeconds"] < 300
        assert job["spec"]["template"]["spec"]["activeDeadlineSeconds"] < job["spec"]["activeDeadlineSeconds"]
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    longer = only(objects(values_of("minimal", migrations={"deadlineSeconds": 900})), "Job")
    assert {one["spec"]["activeDeadlineSeconds"] for one in longer} == {900}


def test_mistake_5_ordinary_jobs_get_a_new_name_when_they_change() -> None:
    # A job cannot be changed in place.
    def names(**more: Any) -> set[str]:
        jobs = only(objects(values_of("oauth", **more)), "Job")
        assert not any(is_hook(one) for one in jobs)
        return {one["metadata"]["name"] for one in jobs}

    assert names() == names()
    assert not names() & names(image={"tag": "2"})
    assert not names() & names(config={"detection": {"step": "1d"}})
    assert not only(rendered("mutual-tls"), "Job")


def test_mistake_6_it_can_be_part_of_another_chart(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    (parent / "templates").mkdir(parents=True)
    shutil.copytree(CHART, parent / "charts/complaint-radar")
    about = {
        "apiVersion": "v2",
        "name": "parent",
        "version": "1.0.0",
        "dependencies": [{"name": "complaint-radar", "version": "0.1.0", "condition": "complaint-radar.enabled"}],
    }
    (parent / "Chart.yaml").write_text(yaml.safe_dump(about), encoding="utf-8")
    inner = values_of("minimal", enabled=True)
    found = objects({"global": {"storageClass": "fast", "any": [1]}, "complaint-radar": inner}, parent)
    assert len(only(found, "Deployment")) == 5
    assert not objects({"complaint-radar": inner | {"enabled": False}}, parent)


def test_mistake_7_liveness_asks_nobody_else() -> None:
    for component in COMPONENTS:
        one = container(pods(rendered("minimal"))[component])
        paths = {probe: one[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    for job in JOBS:
        assert not any("Probe" in key for key in container(pods(rendered("minimal"))[job]))


def test_mistake_8_a_node_can_always_be_drained() -> None:
    budgets = only(rendered("minimal"), "PodDisruptionBudget")
    assert len(budgets) == 3
    for one in budgets:
        assert one["metadata"]["labels"]["app.kubernetes.io/component"] not in SINGLE
        assert one["spec"]["maxUnavailable"] == 1
        assert "minAvailable" not in one["spec"]
    assert not only(objects(values_of("minimal", podDisruptionBudget={"enabled": False})), "PodDisruptionBudget")


def test_mistake_9_no_membership_by_a_passing_name() -> None:
    # The name of a Deployment's pod changes at each rollout: as an identity in a consumer group it gains nothing.
    for pod in pods(rendered("scram-tls")).values():
        assert "fieldRef" not in json.dumps(pod)
        assert "INSTANCE" not in json.dumps(environment(pod))


def test_mistake_10_every_pod_takes_what_is_passed_through() -> None:
    passed = {
        "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        "priorityClassName": "high",
        "podAnnotations": {"example.com/a": "b"},
        "podLabels": {"example.com/c": "d"},
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "terminationGracePeriodSeconds": 77,
        "dataSize": "3Gi",
    }
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert set(passed) == set(defaults["common"])
    values = values_of("minimal", common=passed, image={"pullSecrets": [{"name": "login"}], "pullPolicy": "Always"})
    own = copy.deepcopy(passed) | {
        "nodeSelector": {"own": "one"},
        "tolerations": [],
        "podLabels": {"example.com/own": "one"},
        "extraEnv": [{"name": "OWN", "value": "one"}],
        "extraVolumes": [],
        "extraVolumeMounts": [],
    }
    overridden = values | dict.fromkeys((*COMPONENTS, "migrations"), own)
    for given in (values, overridden):
        found = objects(given)
        assert set(pods(found)) == {*COMPONENTS, *JOBS}
        for component, pod in pods(found).items():
            spec, mine = pod["spec"], given is overridden
            assert spec["imagePullSecrets"] == [{"name": "login"}], component
            assert container(pod)["imagePullPolicy"] == "Always"
            assert spec["nodeSelector"] == ({"own": "one"} if mine else {"a": "b"})
            assert spec.get("tolerations") == (None if mine else passed["tolerations"])
            assert spec["affinity"] == {"nodeAffinity": {}}
            (spread,) = spec["topologySpreadConstraints"]
            assert spread["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == component
            assert spec["priorityClassName"] == "high"
            assert pod["metadata"]["annotations"]["example.com/a"] == "b"
            assert pod["metadata"]["labels"]["example.com/c"] == "d"
            assert ("example.com/own" in pod["metadata"]["labels"]) == mine
            assert environment(pod)["TZ"] == "UTC"
            assert ("OWN" in environment(pod)) == mine
            assert {"name": "more", "emptyDir": {}} in spec["volumes"]
            assert {"name": "more", "mountPath": "/more"} in container(pod)["volumeMounts"]
            assert spec["terminationGracePeriodSeconds"] == 77
            assert {"name": "data", "emptyDir": {"sizeLimit": "3Gi"}} in spec["volumes"]


@every_values_file
def test_mistake_10_no_scripts_as_arguments(name: str) -> None:
    for pod in pods(rendered(name)).values():
        assert len(" ".join(container(pod)["args"])) < 100
        assert "\n" not in "".join(container(pod)["args"])
