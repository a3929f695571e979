"""What is read from texts of others: request bodies, pages of metrics, manifests."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from heliostat_crds.manifest import MAX_PROBLEMS, parse_manifests
from heliostat_extproc.apis import APIS, Api, BodyFormat
from heliostat_extproc.engine_metrics import MetricsError, parse_engine_metrics
from heliostat_extproc.errors import InputError
from heliostat_extproc.request_body import RequestBody, read_request
from heliostat_routing.events import MetricsScraped, PoolUpdated, RequestArrived
from heliostat_routing.router import Router
from heliostat_routing.settings import BLOCK_BYTES, EndpointSettings, PoolSettings

from .seeds import corpus, mutated

BODIES, FORMS = corpus("bodies"), corpus("forms")
JSON_FRAGMENTS = (
    *(b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"null", b"true", b"-0", b"1e999", b"NaN"),
    *(b'"model":', b'"model":"a",', b'"mod\\u0065l":"a",', b'"messages":', b"\\ud800", b"\\udc00"),
    *(
        b"\\u0000",
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        "ü\U0001f600".encode(),
        b"[[[[[[[[",
        b'{"a":' * 9,
    ),
    *(b'"image_url":', b'"cache_control":{"type":"ephemeral"}', b"x" * BLOCK_BYTES, b" " * 300),
)
FORM_FRAGMENTS = (
    *(b"--b\r\n", b"--b--\r\n", b"\r\n\r\n", b"\r\n", b"--b", b"\0", b"\xff", b"x" * BLOCK_BYTES),
    *(b'content-disposition: form-data; name="model"\r\n\r\na', b'; filename="', b'"', b";", b"="),
)
CONTENT_TYPES = (
    *(
        "multipart/form-data; boundary=b",
        'multipart/form-data; boundary="b"',
        "multipart/form-data",
    ),
    *(
        "application/json",
        "",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\xff",
    ),
)
JSON_APIS = [api for api in APIS.values() if api.body is BodyFormat.JSON]
FORM_APIS = [api for api in APIS.values() if api.body is BodyFormat.FORM]


def read(body: bytes, api: Api, content_type: str) -> RequestBody | None:
    """Read a request and do with it all that the router does; None where it is refused."""
    try:
        request = read_request(body, api, content_type)
    except InputError:
        return None
    assert request.model
    digest = request.digest(request.model, None)
    assert len(digest.block_keys) == digest.prompt_bytes // BLOCK_BYTES
    assert request.max_output_tokens is None or 0 <= request.max_output_tokens < 1e9
    return request


@given(mutated(BODIES, JSON_FRAGMENTS), st.sampled_from(JSON_APIS))
@example(b'{"model":"a","model":"b"}', JSON_APIS[0])
@example(b'{"model":"a","mod\\u0065l":"b"}', JSON_APIS[0])
def test_a_body_means_to_the_router_what_it_means_to_the_engine(body: bytes, api: Api) -> None:
    """Read or refused; what is read has the model that another JSON reader finds in it."""
    request = read(body, api, "application/json")
    if request is None:
        return
    fields = as_engine(body)
    if fields is not None:
        assert fields["model"] == request.model
    try:
        renamed = request.renamed("another")
    except InputError:
        return
    if fields is not None:
        assert as_engine(renamed) == {**fields, "model": "another"}


def as_engine(body: bytes) -> dict[str, Any] | None:
    """Read JSON as Python does; None where it has limits that JSON has not."""
    try:
        fields: dict[str, Any] = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return fields if fields == fields else None


@given(mutated(FORMS, FORM_FRAGMENTS), st.sampled_from(FORM_APIS), st.sampled_from(CONTENT_TYPES))
def test_a_form_is_read_or_refused(body: bytes, api: Api, content_type: str) -> None:
    """Whatever its parts and its boundary; a model that is renamed is the one that is read."""
    request = read(body, api, content_type)
    if request is None:
        return
    renamed = read(request.renamed("another"), api, content_type)
    assert renamed is not None
    assert renamed.model == "another"
    assert renamed.digest("m", None) == request.digest("m", None)


PAGES = corpus("metrics")
PAGE_FRAGMENTS = (
    *(b"\n", b" ", b"{", b"}", b"NaN", b"-1", b"+Inf", b"1e308", b"9" * 400, b"1_0", b"0x1", b"\0"),
    *(b"vllm:kv_cache_usage_perc 0.5\n", b"vllm:num_requests_waiting", b"# HELP ", b"\xff", b'"'),
    *(b'vllm:cache_config_info{num_gpu_blocks="999999999999999"} 1\n', b"\xd9\xa1", b"\r", b"\t"),
)


@given(st.lists(mutated(PAGES, PAGE_FRAGMENTS), min_size=1, max_size=4))
def test_whatever_an_engine_says_of_itself_requests_are_decided(pages: list[bytes]) -> None:
    """A page is numbers within bounds or an error; the core takes any sequence of such pages."""
    router = Router()
    router.handle(PoolUpdated("p", PoolSettings(), (EndpointSettings("e:1"),)), 0.0)
    for number, page in enumerate(pages, start=1):
        try:
            metrics = parse_engine_metrics(page)
        except MetricsError:
            continue
        assert 0.0 <= metrics.kv_cache_utilization <= 1.0
        assert 0 <= metrics.running_requests <= 2**53
        router.handle(MetricsScraped("e:1", metrics), float(number))
        router.handle(RequestArrived(number, "p", (1, 2, number), 1500), number + 0.5)
    router.views(100.0)


MANIFESTS = corpus("manifests")
YAML_FRAGMENTS = (
    *(
        b"\n",
        b"  ",
        b"\t",
        b": ",
        b"- ",
        b"---\n",
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!python/none ",
        b"[",
        b"{",
    ),
    *(
        b"null",
        b"~",
        b"1e400",
        b"0x10",
        b"-1",
        b".nan",
        b"9" * 5000,
        b"2001-01-01",
        b'"',
        b"\\ud800",
    ),
    *(
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        "ü\u2028\U0001f600".encode(),
        b"[" * 40,
        b"|\n",
        b"# ",
        b"? ",
    ),
    *(b"spec:", b"model:", b"endpoints:", b"adapters:", b"replicas: 1", b"kind: List", b"items:"),
)


@given(mutated(MANIFESTS, YAML_FRAGMENTS))
def test_a_manifest_gives_resources_or_problems(content: bytes) -> None:
    """What is declared can be carried out by the core; problems are bounded, and each has words."""
    found = parse_manifests("pools.yaml", content.decode("utf-8", "replace"))
    assert found.pools or found.peers or found.problems
    assert len(found.problems) <= MAX_PROBLEMS + 1
    assert all(len(str(problem)) < 2000 for problem in found.problems)
    router = Router()
    for manifest in found.pools:
        pool = manifest.pool
        router.handle(PoolUpdated(pool.key, pool.pool_settings(), pool.endpoint_settings()), 0.0)
        router.handle(RequestArrived(1, pool.key, (1,), 600), 1.0)
    router.views(2.0)
