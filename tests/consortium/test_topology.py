"""The model, and what is made from it: settings, compose file, the docs' table."""

import json
import re
import stat
import tarfile
from dataclasses import asdict
from io import BytesIO
from itertools import count
from pathlib import Path

import pytest
import yaml

from orthanc_ledger.cli import build_parser
from orthanc_ledger.consortium import files, ipfs, packages
from orthanc_ledger.consortium.__main__ import PAGES
from orthanc_ledger.consortium.binaries import CHAINCODE_SOURCE
from orthanc_ledger.consortium.compose import ENVIRONMENT, WHOLE, compose_files, prepare_compose
from orthanc_ledger.consortium.network import Network
from orthanc_ledger.consortium.page import with_table
from orthanc_ledger.consortium.settings import configtx, core_yaml
from orthanc_ledger.consortium.topology import DEFAULTS, FABRIC_VERSION, KUBO_VERSION, Settings, Topology, trial
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.ledger.fabric.connection import read_connection
from tests.consortium.live import need_go

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
AGAIN = "changed: run python -m orthanc_ledger.consortium render"


def ports(topology: Topology) -> list[int]:
    return [port for each in topology.servers for name, port in vars(each).items() if name.endswith("port")]


def test_the_compose_files_are_what_the_model_makes() -> None:
    assert {path.name: path.read_text() for path in DOCKER.glob("*.yaml")} == compose_files(trial()), AGAIN


def test_one_compose_file_has_those_of_all_organisations() -> None:
    contents = {name: yaml.safe_load(text) for name, text in compose_files(trial()).items()}
    whole = contents.pop(WHOLE)
    assert whole["include"] == [f"{each.name}.yaml" for each in trial().organisations] == list(contents)
    assert {content["name"] for content in contents.values()} == {whole["name"]}
    services = [name for content in contents.values() for name in content["services"]]
    assert len(services) == len(set(services))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_s_table_is_what_the_model_makes(page: Path) -> None:
    text = page.read_text()
    assert with_table(text, PAGES[page](trial())) == text, AGAIN
    assert len(text.splitlines()) <= 150


def test_owner_and_custodian_must_both_sign_whatever_else_the_channel_has() -> None:
    profile = configtx(trial(("hospital", "custodian", "lab", "clinic")), DEFAULTS, "crypto")["Profiles"]["Custody"]
    both = {
        kind: {"Type": "Signature", "Rule": f"AND('HospitalMSP.{kind}', 'CustodianMSP.{kind}')"}
        for kind in ("peer", "admin")
    }
    application = profile["Application"]["Policies"]
    assert application["Endorsement"] == application["LifecycleEndorsement"] == both["peer"]
    assert application["Admins"] == profile["Policies"]["Admins"] == both["admin"]
    rule = "AND('HospitalOrdererMSP.admin', 'CustodianOrdererMSP.admin')"
    assert profile["Orderer"]["Policies"]["Admins"] == {"Type": "Signature", "Rule": rule}


def test_three_orderers_belong_to_three_organisations_that_cannot_act_for_them() -> None:
    topology = trial()
    msp_ids = [each.msp_id for each in topology.orderers] + [each.msp_id for each in topology.organisations]
    assert len(topology.orderers) == 3
    assert len(set(msp_ids)) == 6


def test_any_number_of_research_organisations_and_ports_of_one_s_own() -> None:
    topology = trial(("hospital", "custodian", "lab", "clinic")).with_ports(count(20_000).__next__)
    assert [each.role for each in topology.organisations] == ["owner", "custodian", "research", "research"]
    assert sorted(ports(topology)) == list(range(20_000, 20_000 + len(ports(topology))))
    assert len(set(ports(trial()))) == len(ports(trial()))
    with pytest.raises(ValueError, match="hospital and custodian first"):
        trial(("custodian", "hospital"))


@pytest.mark.parametrize(("window_s", "listed"), [(300, True), (None, False)])
def test_the_time_window_filter_is_listed_unless_switched_off(window_s: int | None, listed: bool) -> None:
    peer = core_yaml(Settings(time_window_s=window_s), "builder")["peer"]
    assert ({"name": "TimeWindowCheck"} in peer["handlers"]["authFilters"]) is listed
    assert peer["authentication"]["timewindow"] == f"{window_s or 0}s"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files for the containers."""
    need_go()
    folder = tmp_path_factory.mktemp("containers")
    prepare_compose(folder, trial(), "5" * 64)
    return folder


@pytest.mark.timeout(1200)
def test_every_file_that_a_container_is_told_of_is_mounted_into_it(prepared: Path) -> None:
    variables = dict(line.split("=", 1) for line in (prepared / ENVIRONMENT).read_text().splitlines())
    services = {}
    for each in trial().organisations:
        text = (DOCKER / f"{each.name}.yaml").read_text()
        services |= yaml.safe_load(re.sub(r"\$\{(\w+):\?\}", lambda found: variables[found[1]], text))["services"]
    parties = {name: services.pop(name) for name in ("node.hospital", "keeper.custodian")}
    parties |= {name: services.pop(name) for name in ("orthanc.hospital", "orthanc.research")}
    assert set(services) == {each.name for each in trial().servers}
    for name, service in parties.items():
        own = files.party(prepared, name.partition(".")[2])  # and nobody else's
        assert (service["volumes"][0], service["working_dir"]) == (f"{own}:{own}", str(own))
        assert service["network_mode"] == "host"  # whose 127.0.0.1 its connection files name
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        if "command" in service:
            assert vars(build_parser().parse_args(service["command"]))["run"]
        assert [Path(mount.split(":")[0]).exists() for mount in service["volumes"]].count(False) == 0
    for kubo in trial().kubos:
        service = services.pop(kubo.name)
        ((source, target),) = (mount.split(":") for mount in service["volumes"])
        assert target == service["environment"]["IPFS_PATH"]
        addresses = json.loads((Path(source) / "config").read_text())["Addresses"]
        assert addresses["Swarm"] == [f"/ip4/0.0.0.0/tcp/{kubo.port}"]
        assert addresses["API"] == f"/ip4/0.0.0.0/tcp/{kubo.api_port}"
        assert service["ports"] == [f"127.0.0.1:{port}:{port}" for port in (kubo.port, kubo.api_port)]
        assert service["image"] == f"ipfs/kubo:v{KUBO_VERSION}"
    for name, service in services.items():
        mounts = [mount.split(":")[:2] for mount in service["volumes"]]
        told = re.findall(r"/consortium/[\w./]+", " ".join(map(str, service["environment"].values())))
        assert told
        for path in told:
            (source, target) = next(each for each in mounts if f"{path}/".startswith(f"{each[1]}/"))
            if source != name:  # a volume of its own
                assert (Path(source) / path.removeprefix(target).lstrip("/")).exists(), f"{name}: {path}"
        assert [mount for mount in mounts if mount[0].endswith("/crypto")] == []  # nobody has all keys
        images = service.get("image", f":{FABRIC_VERSION}")
        assert images.endswith(f":{FABRIC_VERSION}")
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_the_chaincode_s_image_has_the_go_that_its_module_asks_for() -> None:
    module = re.search(r"^go (\d+)\.(\d+)", (CHAINCODE_SOURCE / "go.mod").read_text(), re.MULTILINE)
    image = re.search(
        r"^FROM golang:(\d+)\.(\d+)", (ROOT / "docker" / "chaincode.Dockerfile").read_text(), re.MULTILINE
    )
    assert module is not None
    assert image is not None
    assert tuple(map(int, image.groups())) >= tuple(map(int, module.groups()))


@pytest.mark.timeout(1200)
def test_a_package_is_the_same_bytes_each_time_and_holds_its_organisation_s_keys_alone(prepared: Path) -> None:
    hospital, custodian = trial().with_hosts(lambda name: name).organisations[:2]
    keys = prepared / "crypto" / "chaincode"
    packed = packages.package(hospital, keys / "hospital")
    assert packed == files.package(prepared, hospital).read_bytes()
    assert packed[4:8] == bytes(4)  # no time of day in it: RFC 1952 2.3, MTIME
    with (
        tarfile.open(fileobj=BytesIO(packed)) as outer,
        tarfile.open(fileobj=outer.extractfile("code.tar.gz")) as inner,
    ):
        connection = yaml.safe_load(inner.extractfile("connection.json") or b"")
    assert connection["address"] == "chaincode.hospital:7059"
    assert connection["tls_required"] is connection["client_auth_required"] is True
    assert connection["client_key"] == (keys / "hospital" / "client.key").read_text()
    assert packages.package_id(hospital, packed).startswith("custody_hospital:")
    assert packages.package(custodian, keys / "custodian") != packed


@pytest.mark.timeout(1200)
def test_a_party_s_connection_file_is_read_by_its_nodes_and_names_its_own_peers(prepared: Path) -> None:
    connection = read_connection(files.connection(prepared, "hospital"))
    assert [peer.endpoint for peer in connection.peers] == ["127.0.0.1:7053", "127.0.0.1:7056"]
    assert set(connection.organisations) == {"HospitalMSP", "CustodianMSP", "ResearchMSP"}
    other = files.write_connection(prepared, trial(), trial().organisations[0], "second")
    assert read_connection(other).chaincode == "second"


@pytest.mark.timeout(1200)
def test_a_folder_with_something_in_it_is_left_alone(prepared: Path) -> None:
    with pytest.raises(ConfigError, match="expected a new or empty folder"):
        prepare_compose(prepared, trial(), "5" * 64)


@pytest.mark.timeout(1200)
def test_containers_are_not_started_as_processes(prepared: Path) -> None:
    with pytest.raises(ConfigError, match="its servers are containers"):
        Network(prepared).up()


@pytest.mark.timeout(1200)
def test_a_party_s_kubo_file_names_its_own_nodes_alone_and_secrets_are_its_own_user_s(prepared: Path) -> None:
    for organisation in trial().organisations:
        path = ipfs.connection(prepared, organisation.name)
        nodes = yaml.safe_load(path.read_text())["nodes"]
        assert [node["name"] for node in nodes] == [kubo.name for kubo in organisation.kubos]
        for node in nodes:
            repo = path.parent / node["kubo_repo"]
            secrets = (path.parent / node["token"], repo / "config", repo / "swarm.key")
            assert [stat.filemode(each.stat().st_mode) for each in secrets] == ["-rw-------"] * 3
            assert secrets[0].read_text().strip() in secrets[1].read_text()


def test_a_folder_of_before_kubo_has_no_nodes_of_it(tmp_path: Path) -> None:
    topology = asdict(trial())
    for organisation in topology["organisations"]:
        del organisation["kubos"], organisation["clusters"]
    (tmp_path / files.STATE).write_text(json.dumps({"topology": topology, "policy_sha256": "5" * 64}))
    old, _ = files.read_state(tmp_path)
    assert old.kubos == ()
    assert [each.name for each in old.servers] == [each.name for each in trial().servers if "kubo" not in each.name]


def test_a_folder_that_is_no_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected the folder of a network, with network\.json"):
        files.read_state(tmp_path)
