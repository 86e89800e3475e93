import json
import re

import pytest

import modelpack
from modelpack.cli._run import run
from tests.support.models import write_files
from tests.support.samplemodel import build_sample
from tests.unit.sbom.subjects import FULL_TEXT
from tests.unit.sbom.validators import check_cyclonedx, check_spdx, of_type


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("SOURCE_DATE_EPOCH", raising=False)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_sample(tmp_path_factory.mktemp("sbom") / "model")


@pytest.fixture(scope="module")
def reference(model):
    reference = f"oci:{model.parent / 'store'}:v1"
    modelpack.push(model, reference)
    return reference


@pytest.fixture
def supplement(tmp_path):
    path = tmp_path / "supplement.yaml"
    path.write_bytes(FULL_TEXT)
    return path


@pytest.fixture
def cli(capfd):
    """A function that runs a command line; returns its status, stdout and stderr."""

    def call(*arguments):
        status = run([str(argument) for argument in arguments])
        return status, *capfd.readouterr()

    return call


def test_a_reference_and_its_directory_have_the_same(cli, model, reference):
    status, first, err = cli("sbom", reference)
    assert (status, err) == (0, "")
    check_cyclonedx(first.encode())
    assert cli("sbom", model, "--quiet") == (0, first, "")


def test_a_file_holds_exactly_what_the_artifact_carries(cli, reference, tmp_path):
    status, out, err = cli("sbom", reference, "-o", tmp_path / "out.json")
    assert (status, out) == (0, "")
    assert re.fullmatch(
        r"wrote .*out\.json: cyclonedx, .* KiB, 12 files, as the artifact carries it\n", err
    )
    modelpack.pull(reference, tmp_path / "pulled")
    carried = (tmp_path / "pulled/.modelpack/sbom.cdx.json").read_bytes()
    assert (tmp_path / "out.json").read_bytes() == carried


def test_json_says_what_was_written(cli, model, tmp_path):
    status, out, err = cli("sbom", model, "-o", tmp_path / "out.json", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == {
        "subject": str(model),
        "digest": None,
        "format": "cyclonedx",
        "output": str(tmp_path / "out.json"),
        "bytes": (tmp_path / "out.json").stat().st_size,
        "in_band": False,
        "files": 12,
    }


def test_spdx_with_what_only_people_know(cli, reference, supplement):
    status, out, err = cli("sbom", reference, "--format", "spdx", "--supplement", supplement)
    assert status == 0
    graph = check_spdx(out.encode())
    assert [item["name"] for item in of_type(graph, "ai_AIPackage")] == ["tiny"]
    assert err == (
        "note: it does not claim SPDX's ai profile: tiny: software_downloadLocation is missing\n"
    )


def test_spdx_is_dated_by_the_source_date(cli, reference, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first, second = (cli("sbom", reference, "--format", "spdx", "--quiet")[1] for _ in range(2))
    assert first == second
    (info,) = of_type(json.loads(first)["@graph"], "CreationInfo")
    assert info["created"] == "2023-11-14T22:13:20Z"


def test_sha256_is_added_on_request(cli, model, reference):
    status, out, _ = cli("sbom", model, "--sha256", "--quiet")
    assert status == 0
    files = [item for item in check_cyclonedx(out.encode())["components"] if item["type"] == "file"]
    assert all([each["alg"] for each in file["hashes"]] == ["BLAKE3", "SHA-256"] for file in files)
    status, out, err = cli("sbom", reference, "--sha256")
    assert (status, out) == (2, "")
    assert "--sha256 needs the files; pull it and name the directory" in err


def test_the_check_is_a_table_by_cluster(cli, reference):
    status, out, err = cli("sbom", reference, "--check")
    assert (status, err) == (0, "")
    assert re.search(r"^Models \(4 of 13\)$", out, re.MULTILINE)
    assert re.search(r"^  present  Model license +Apache-2\.0$", out, re.MULTILINE)
    assert re.search(r"^  missing  Model version +model\.version$", out, re.MULTILINE)
    assert re.search(r"^  unknown  SBOM author signature ", out, re.MULTILINE)
    assert out.endswith("13 of 50 minimum elements are present, 36 missing, 1 unknown\n")


def test_the_check_in_json(cli, reference, supplement, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    status, out, err = cli("sbom", reference, "--check", "--json", "--supplement", supplement)
    assert (status, err) == (0, "")
    value = json.loads(out)
    assert value.keys() == {"subject", "digest", "ok", "counts", "elements", "lacking"}
    assert value["counts"] == {"present": 49, "missing": 0, "unknown": 1}
    assert (value["ok"], value["lacking"]) == (True, [])


def test_the_check_and_the_document(cli, model, tmp_path):
    status, out, _ = cli("sbom", model, "--check", "--quiet", "-o", tmp_path / "out.json")
    assert status == 0
    assert "minimum elements are present" in out
    check_cyclonedx((tmp_path / "out.json").read_bytes())


@pytest.mark.parametrize("json_too", [False, True])
def test_what_is_required_and_lacking_is_refused(cli, reference, supplement, json_too):
    more = ["--json"] * json_too
    status, out, err = cli(
        "sbom", reference, "--require", "model-version", "--require", "Model license", *more
    )
    assert status == 6
    assert err == (
        f"modelpack: {reference}: its SBOM lacks what is required: Model version; "
        "add it with --supplement FILE\n"
    )
    if json_too:
        assert json.loads(out)["lacking"] == ["model-version"]
    status, *_ = cli("sbom", reference, "--require", "models", "--supplement", supplement, *more)
    assert status == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["{store}:v9"], 3, "v9 does not exist"),
        (["/nothing/here"], 3, "/nothing/here does not exist"),
        (
            ["here"],
            2,
            "there is no directory 'here' here, and reference 'here' does not start with a registry host",
        ),
        (["{store}:v1-modelpack"], 5, "was not packed by modelpack"),
        (["{store}:v1", "--require", "colour"], 2, "'colour' is no minimum element"),
        (["{store}:v1", "--supplement", "/nothing.yaml"], 3, "/nothing.yaml does not exist"),
        (["{store}:v1", "--supplement", "{bad}"], 2, "bad.yaml: model.colour is not known"),
        (["{store}:v1", "-o", "/nothing/out.json"], 1, "cannot write /nothing/out.json"),
        (["{store}:v1", "--format", "html"], 2, "--format"),
    ],
)
def test_failures_are_a_line_and_a_status(cli, reference, tmp_path, arguments, status, message):
    write_files(tmp_path, {"bad.yaml": b"model: {colour: blue}"})
    names = {"store": reference.removesuffix(":v1"), "bad": tmp_path / "bad.yaml"}
    got, out, err = cli("sbom", *(each.format(**names) for each in arguments))
    assert (got, out) == (status, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments", [["sbom", "{model}"], ["push", "{model}", "oci:{model}-x:v1"]]
)
def test_a_bad_source_date_is_found_before_any_work(cli, model, monkeypatch, arguments):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    status, out, err = cli(*(each.format(model=model) for each in arguments))
    assert (status, out) == (2, "")
    assert "SOURCE_DATE_EPOCH is 'yesterday'; it must be seconds since 1970" in err


def test_nothing_from_a_model_reaches_the_terminal(cli, tmp_path):
    card = b"---\nlicense: other\nlicense_name: x\\x1b[31m\ndatasets: ['\xe2\x80\xae', \"a\\eb\"]\n---\n"
    model = write_files(tmp_path / "model", {"README.md": card, "a\u202eb.bin": b"1"})
    for arguments in (["--check"], []):
        status, out, err = cli("sbom", model, "--quiet", *arguments)
        assert status == 0
        assert "\x1b" not in out + err
    assert "\u202e" not in cli("sbom", model, "--quiet", "--check")[1]


def test_what_only_people_know_goes_into_the_artifact(cli, model, supplement, tmp_path):
    store = f"oci:{tmp_path / 'store'}"
    pushed = ("push", model, "--quiet", "--json")
    digests = []
    for tag, more in (("plain", ()), ("one", ("--supplement", supplement)),
                      ("again", ("--supplement", supplement))):  # fmt: skip
        status, out, err = cli(*pushed, f"{store}:{tag}", *more)
        assert (status, err) == (0, "")
        digests.append(json.loads(out)["digest"])
    assert digests[0] != digests[1] == digests[2]
    status, carried, _ = cli("sbom", f"{store}:one")
    document = check_cyclonedx(carried.encode())
    assert document["metadata"]["component"]["supplier"]["name"] == "Example GmbH"
    # It is what is described beforehand, and what comes with a pull.
    assert cli("sbom", model, "--supplement", supplement, "--quiet") == (0, carried, "")
    assert cli("pull", f"{store}:one", tmp_path / "out", "--quiet")[0] == 0
    assert (tmp_path / "out/.modelpack/sbom.cdx.json").read_text().rstrip() == carried.rstrip()
    assert cli("verify", tmp_path / "out", "--quiet")[0] == 0


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [(None, 3, "does not exist"), ("model: {verison: '1'}", 2, "verison"), ("- 1", 2, "mapping")],
    ids=["missing", "misspelt", "list"],
)
def test_a_supplement_that_is_none_is_found_before_anything_is_stored(
    cli, model, tmp_path, text, status, said
):
    file = tmp_path / "supplement.yaml"
    if text is not None:
        file.write_text(text)
    found, _, err = cli("push", model, f"oci:{tmp_path / 'store'}:v1", "--supplement", file)
    assert found == status
    assert said in err
    assert not (tmp_path / "store").exists()
