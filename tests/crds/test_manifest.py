import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat_crds.manifest import MAX_PROBLEMS, parse_manifests

HEAD = "apiVersion: heliostat.dev/v1alpha1\nkind: InferencePool\n"
GOOD = HEAD + "metadata: {name: chat}\nspec:\n  model: {name: llama}\n"


def problems(text: str) -> list[str]:
    return [str(problem) for problem in parse_manifests("pools.yaml", text).problems]


def test_every_problem_is_told_with_its_line_and_what_is_allowed() -> None:
    """A document with many faults names each one's line, field, fault and remedy, in order."""
    text = """\
apiVersion: heliostat.dev/v1alpha1
kind: InferencePool
metadata:
  name: Chat
  labels: {tier: 1}
spec:
  model:
    aliases: llama
  endpoints:
    - address: 10.0.0.1:8000
      phase: Gone
  routing:
    polcy: Heliostat
    queueTimeout: 60
    ageBound: 2h
    pendingLimit: "3"
    fallbacks:
"""
    assert problems(text) == [
        (
            'pools.yaml:4: metadata.name: "Chat" is not allowed; expected text: 1 to 46 lower-case '
            "letters, digits and `-`, a letter first, no `-` at the end"
        ),
        "pools.yaml:5: metadata.labels.tier: the number 1 is not allowed; expected text",
        "pools.yaml:7: spec.model.name: this field is required",
        (
            'pools.yaml:8: spec.model.aliases: "llama" is not allowed; expected list of text: '
            "at most 32 items"
        ),
        (
            'pools.yaml:11: spec.endpoints[0].phase: "Gone" is not allowed; expected text: '
            "Ready, Draining"
        ),
        (
            'pools.yaml:13: spec.routing.polcy: unknown field (did you mean "policy"?); allowed: '
            "policy, pendingLimit, queueLimit, queueTimeout, ageBound, firstTokenObjective, "
            "prefillTokensPerSecond, fallbacks"
        ),
        (
            "pools.yaml:14: spec.routing.queueTimeout: the number 60 is not allowed; expected "
            "text: a duration from 1ms to 1h"
        ),
        'pools.yaml:15: spec.routing.ageBound: "2h" is out of range; allowed: 0s to 1h',
        (
            'pools.yaml:16: spec.routing.pendingLimit: "3" is not allowed; expected integer: '
            "0 to 10000"
        ),
        (
            "pools.yaml:17: spec.routing.fallbacks: an empty value is not allowed; expected "
            "integer: 0 to 8"
        ),
    ]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            "  endpoints:\n  - address: 10.0.0.1\n  - address: 10.0.0.1:8000\n",
            "pools.yaml:8: spec.endpoints[1].address: 10.0.0.1:8000 is listed twice",
        ),
        (
            "  endpoints:\n  - address: engine-0:8000\n",
            (
                'pools.yaml:7: spec.endpoints[0].address: "engine-0:8000" is not an address; '
                'write "10.0.0.7:8000" or "[fd00::7]:8000" (IP addresses only, '
                "host names are not resolved)"
            ),
        ),
        (
            "  engine:\n    adapters:\n    - name: sql\n    - name: llama\n",
            'pools.yaml:9: spec.engine.adapters[1].name: "llama" is already the name in model.name',
        ),
        (
            (
                "  engine:\n    adapters: [{name: sql}]\n"
                "  endpoints:\n  - address: 10.0.0.1\n    adapters: [sqll]\n"
            ),
            (
                'pools.yaml:10: spec.endpoints[0].adapters[0]: "sqll" is not in '
                "spec.engine.adapters; known: sql"
            ),
        ),
    ],
)
def test_faults_between_fields_point_at_the_culprit(spec: str, expected: str) -> None:
    """What is wrong only together with another field is told at the line of the later one."""
    assert problems(GOOD + spec) == [expected]


def test_a_file_may_hold_many_documents_and_lists() -> None:
    """Documents and the items of a List are resources, each with its own line."""
    items = (
        "apiVersion: v1\nkind: List\nitems:\n"
        "- apiVersion: heliostat.dev/v1alpha1\n  kind: InferencePool\n"
        "  metadata: {name: code}\n  spec: {model: {name: coder}}\n"
        "- apiVersion: heliostat.dev/v1alpha1\n  kind: InferencePool\n"
        "  metadata: {name: code2}\n  spec: {model: {name: coder2, aliases: [1]}}\n"
    )
    found = parse_manifests("pools.yaml", f"---\n# comment\n---\n{GOOD}---\n{items}")
    assert [(manifest.pool.key, manifest.line) for manifest in found.pools] == [
        ("chat", 4),
        ("code", 13),
    ]
    assert [str(problem) for problem in found.problems] == [
        (
            "pools.yaml:20: items[1].spec.model.aliases[0]: the number 1 is not allowed; "
            "expected text: 1 to 256 printable ASCII characters, no spaces"
        )
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "pools.yaml: the file holds no resource; delete it to remove its pools"),
        ("# only\n---\n", "pools.yaml: the file holds no resource; delete it to remove its pools"),
        ("a: [\n", "pools.yaml:2: not valid YAML: while parsing a flow node, did not find"),
        ("a: 1\nb: 2\na: 3\n", 'pools.yaml:3: key "a" is already given in line 1'),
        (GOOD + "  model: {}\n", 'pools.yaml:6: key "model" is already given in line 5'),
        ("[" * 100_000, "pools.yaml:1: nested too deeply; allowed: 32 levels"),
        ("a: 1\nb: \x00", "pools.yaml:2: character not allowed in YAML"),
        ("? [a]\n: b\n", "pools.yaml:1: a key must be text"),
        ("a: !!python/name:os.system ''", "pools.yaml:1: not valid YAML: could not determine"),
        ("- a\n", "pools.yaml:1: not a resource; expected a mapping with apiVersion: heliostat"),
        ("a: b\n", "pools.yaml:1: kind is missing; supported: InferencePool, R"),
        (
            "apiVersion: apps/v1\nkind: Deployment\n",
            'pools.yaml:2: kind: kind "Deployment" is not supported; supported: InferencePool, R',
        ),
        ("kind: InferencePool\n", "pools.yaml:1: apiVersion is missing; allowed: heliostat.dev/v1"),
        (
            "kind: InferencePool\napiVersion: heliostat.dev/v1\n",
            'pools.yaml:2: apiVersion: "heliostat.dev/v1" is not supported; allowed: heliostat.dev',
        ),
        ("apiVersion: v1\nkind: List\n", "pools.yaml:1: items: a List needs a list of items"),
    ],
)
def test_what_is_no_resource_is_told(text: str, expected: str) -> None:
    """Broken YAML, doubled keys and other kinds give one problem that says where and what."""
    (problem,) = problems(text)
    assert problem.startswith(expected)


def test_what_kubectl_prints_is_a_manifest() -> None:
    """What an API server adds means nothing in a folder; a typing error beside it is still told."""
    printed = (
        "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n"
        "- apiVersion: heliostat.dev/v1alpha1\n  kind: InferencePool\n"
        "  metadata:\n    name: chat\n    uid: 0b2d\n    generation: 2\n    managedFields: [{}]\n"
        '    creationTimestamp: "2026-01-02T03:04:05Z"\n    finalizers: [a/b]\n'
        "  spec: {model: {name: llama}}\n  status: {replicas: 1, conditions: [{}]}\n"
    )
    found = parse_manifests("pools.yaml", printed)
    assert found.problems == ()
    assert found.pools[0].pool == parse_manifests("pools.yaml", GOOD).pools[0].pool
    (problem,) = problems(printed.replace("generation", "generations"))
    assert "metadata.generations: unknown field" in problem


def test_a_model_name_that_looks_like_a_date_stays_text() -> None:
    """Only null, booleans and numbers are more than text."""
    found = parse_manifests("pools.yaml", GOOD.replace("llama", "2026-01-01"))
    assert found.pools[0].pool.spec.model.name == "2026-01-01"


def test_aliases_work_and_cannot_run_away() -> None:
    """An anchor may be used again; one that holds itself, or merge keys, give problems."""
    shared = (
        GOOD.replace("{name: llama}", "{name: &m llama}") + "  engine: {adapters: [{name: *m}]}"
    )
    assert "is already the name in model.name" in problems(shared)[0]
    assert problems(HEAD + "metadata: {name: chat}\nspec: &s {model: *s}\n") != []
    assert "spec.<<: unknown field" in problems(GOOD + "  <<: {engine: {port: 1}}\n")[0]


def test_the_number_of_problems_told_is_bounded() -> None:
    """A file with very many faults tells the first ones and counts the rest."""
    text = GOOD + "  endpoints:\n" + "  - {adress: x}\n" * 50
    told = problems(text)
    assert len(told) == MAX_PROBLEMS + 1
    assert told[-1] == "pools.yaml: 80 more problems"


@given(st.text(max_size=200) | st.text(alphabet="ab:[]{}-&*!|>'\"?,# \n\t<", max_size=80))
def test_no_text_makes_the_reader_raise(text: str) -> None:
    """Whatever a file holds, the answer is pools or problems."""
    found = parse_manifests("pools.yaml", text)
    assert found.pools or found.problems
