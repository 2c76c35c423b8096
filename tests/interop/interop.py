"""The vendor's SDK, unchanged, against `logferry mock`.

Each test_* function starts a mock endpoint of its own; a failed assertion ends the run with exit 1.
The SDK puts the project before the host's name, so the endpoint is called `localhost` and the
names below it are resolved to the loopback address here, as RFC 6761 says they should be.
"""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

PROJECT, LOGSTORE = "interop-project", "interop-logstore"
KEY_ID, KEY_SECRET = "interop-key-id", "interop-key-secret"
DEADLINE_SECONDS = 60

# A proxy of the machine has no business between two processes on it.
for name in list(os.environ):
    if name.lower().endswith("_proxy"):
        del os.environ[name]

_getaddrinfo = socket.getaddrinfo


def _resolve(host, *rest, **named):
    is_loopback = isinstance(host, str) and host.endswith(".localhost")
    return _getaddrinfo("127.0.0.1" if is_loopback else host, *rest, **named)


socket.getaddrinfo = _resolve

from aliyun.log import GetLogsRequest, LogClient, LogException, LogItem, PutLogsRequest  # noqa: E402
from aliyun.log.version import __version__ as SDK_VERSION  # noqa: E402

BINARY = sys.argv[1]
COMPRESSIONS = {"lz4": (True, "lz4"), "zstd": (True, "zstd"), "none": (False, None)}
LINES = ["Log 1 to file", "", "日志，第二行", "<script>alert(1)</script>", 'tab\tquote"', "x" * 3000]


def wait_until(what, condition):
    """Asks `condition` until it gives something true, or fails after the deadline."""
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {DEADLINE_SECONDS} s")


class Mock:
    """A running `logferry mock`; its address is read from its first line."""

    def __init__(self, *flags):
        command = [BINARY, "mock", "--listen", "127.0.0.1:0", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        first = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", first)
        assert found, f"the mock said {first!r} instead of its address"
        self.port = int(found.group(1))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.summary = self.process.communicate(timeout=DEADLINE_SECONDS)[0]
        assert self.process.returncode == 0, self.process.returncode

    def client(self, version="v1", key_id=KEY_ID, secret=KEY_SECRET):
        endpoint = f"http://localhost:{self.port}"
        return LogClient(endpoint, key_id, secret, auth_version=version, region="cn-hangzhou",
                         source="10.7.0.37")


def signed_mock(*flags):
    return Mock("--access-key", f"{KEY_ID}:{KEY_SECRET}", *flags)


def put(client, lines, compression="lz4", logstore=LOGSTORE, hash_key=None):
    items = [LogItem(int(time.time()), contents=[("content", line)]) for line in lines]
    compress, kind = COMPRESSIONS[compression]
    tags = [("__path__", "/share/logs/app.log"), ("_pod_name_", "app-5fqrl")]
    request = PutLogsRequest(PROJECT, logstore, "a topic", None, items, hashKey=hash_key,
                             compress=compress, logtags=tags, compress_type=kind)
    return client.put_logs(request)


def pull_all(client, compression="lz4", logstore=LOGSTORE, count=2):
    """Every LogGroup, by the SDK's own protobuf classes, a few at a time."""
    compress, kind = COMPRESSIONS[compression]
    cursor = client.get_cursor(PROJECT, logstore, 0, "begin").get_cursor()
    end = client.get_cursor(PROJECT, logstore, 0, "end").get_cursor()
    groups = []
    while cursor != end:
        pulled = client.pull_logs(PROJECT, logstore, 0, cursor, count, end, compress=compress,
                                  accept_compress_type=kind)
        assert pulled.get_loggroup_count() <= count
        groups += pulled.get_loggroup_list().LogGroups
        assert pulled.get_next_cursor() != cursor, "the cursor does not move"
        cursor = pulled.get_next_cursor()
    return groups


def as_text(value):
    return value.decode() if isinstance(value, bytes) else value


def lines_of(groups):
    return [as_text(pair.Value) for group in groups for log in group.Logs for pair in log.Contents]


def tags_of(group):
    return [(tag.Key, tag.Value) for tag in group.LogTags]


def refusal(call):
    """The status and code with which the endpoint refuses a call."""
    try:
        call()
    except LogException as error:
        assert error.get_request_id(), "a refusal without a request id"
        return error.get_resp_status(), error.get_error_code()
    raise AssertionError("it was not refused")


def test_writes_and_pulls_back():
    with signed_mock() as mock:
        expected = []
        for version in ("v1", "v4"):
            client = mock.client(version)
            for compression in COMPRESSIONS:
                response = put(client, LINES, compression)
                assert re.fullmatch(r"[0-9A-F]{24}", response.get_request_id())
                expected += LINES
        for version in ("v1", "v4"):
            for compression in COMPRESSIONS:
                groups = pull_all(mock.client(version), compression)
                assert lines_of(groups) == expected
                assert len(groups) == 6
                for group in groups:
                    assert (group.Topic, group.Source) == ("a topic", "10.7.0.37")
                    assert tags_of(group) == [("__path__", "/share/logs/app.log"),
                                              ("_pod_name_", "app-5fqrl")]


def test_bytes_that_are_not_utf8():
    with signed_mock() as mock:
        client = mock.client()
        put(client, [b"caf\xe9 \x00", "日志".encode()])
        group, = pull_all(client)
        # The SDK gives text where it can and bytes where it must.
        values = [pair.Value for log in group.Logs for pair in log.Contents]
        assert values == [b"caf\xe9 \x00", "日志"], values


def test_writes_by_hash_key():
    with signed_mock("--shards", "2") as mock:
        for version in ("v1", "v4"):
            client = mock.client(version)
            put(client, ["high"], hash_key="f" * 32)
            put(client, ["low"], hash_key="0" * 32)
            shards = client.list_shards(PROJECT, LOGSTORE).get_shards_info()
            assert [shard["shardID"] for shard in shards] == [0, 1]
        assert lines_of(pull_all(client)) == ["low", "low"]


def test_cursor_times():
    with signed_mock() as mock:
        client = mock.client()
        put(client, LINES)
        now = int(time.time())
        begin = client.get_cursor(PROJECT, LOGSTORE, 0, "begin").get_cursor()
        end = client.get_cursor(PROJECT, LOGSTORE, 0, "end").get_cursor()
        assert client.get_cursor(PROJECT, LOGSTORE, 0, now - 100).get_cursor() == begin != end
        assert client.get_cursor(PROJECT, LOGSTORE, 0, now + 100).get_cursor() == end
        received = client.get_cursor_time(PROJECT, LOGSTORE, 0, begin).get_cursor_time()
        assert abs(int(received) - now) < 60


def test_queries():
    with signed_mock() as mock:
        now = int(time.time())
        for version, is_new in (("v1", True), ("v4", True), ("v1", False), ("v4", False)):
            client = mock.client(version)
            # The SDK knows two forms of GetLogs and takes the new one unless told otherwise.
            client._get_logs_v2_enabled = is_new
            logstore = f"logstore-{version}-{is_new}".lower()
            put(client, [f"line {number} of {number % 2}" for number in range(150)], logstore=logstore)

            def query(**named):
                request = GetLogsRequest(PROJECT, logstore, now - 60, now + 60, **named)
                response = client.get_logs(request)
                assert response.is_completed()
                assert response.get_count() == len(response.get_logs())
                return response.get_logs()

            assert [log.get_contents()["content"] for log in query(query="of 1", line=3)] == [
                "line 1 of 1", "line 3 of 1", "line 5 of 1"]
            assert len(query(line=-1)) == 150
            assert query(reverse=True, line=1)[0].get_contents()["content"] == "line 149 of 1"
            assert len(query(topic="a topic", offset=140)) == 10
            assert query(topic="another topic") == []
            log = query(line=1)[0]
            assert (log.get_source(), abs(log.get_time() - now) < 60) == ("10.7.0.37", True)
            assert log.get_contents()["__tag__:_pod_name_"] == "app-5fqrl"


def test_names():
    with signed_mock("--logstore", LOGSTORE, "--logstore", "other") as mock:
        client = mock.client()
        assert client.get_logstore(PROJECT, LOGSTORE).get_shard_count() == 1
        assert client.list_logstore(PROJECT).get_logstores_total() == 2


def test_refusals():
    flags = ["--logstore", LOGSTORE, "--project", PROJECT]
    with signed_mock(*flags) as mock:
        for version in ("v1", "v4"):
            wrong_secret = mock.client(version, secret="wrong")
            stranger = mock.client(version, key_id="stranger")
            client = mock.client(version)
            assert refusal(lambda: put(wrong_secret, LINES)) == (401, "SignatureNotMatch")
            assert refusal(lambda: put(stranger, LINES)) == (401, "Unauthorized")
            assert refusal(lambda: pull_all(wrong_secret)) == (401, "SignatureNotMatch")
            assert refusal(lambda: put(client, LINES, logstore="other")) == (404, "LogStoreNotExist")
            other_project = PutLogsRequest("other", LOGSTORE, "", None, [LogItem()])
            assert refusal(lambda: client.put_logs(other_project)) == (404, "ProjectNotExist")
            assert refusal(lambda: client.put_logs(
                PutLogsRequest(PROJECT, LOGSTORE, "", None, [LogItem(1)]))) == (400, "PostBodyInvalid")
            assert refusal(lambda: put(client, ["x"] * 4097)) == (400, "PostBodyTooLarge")
            assert refusal(lambda: client.get_cursor(PROJECT, LOGSTORE, 7, "end")) == (
                404, "ShardNotExist")
        assert pull_all(client) == []
    assert "0 lines in 0 groups accepted" in mock.summary


def test_faults():
    faults = ["error:code=WriteQuotaExceed,times=1", "error:code=ServerBusy,times=2"]
    with signed_mock("--fault", faults[0], "--fault", faults[1]) as mock:
        client = mock.client()
        assert refusal(lambda: put(client, LINES)) == (403, "WriteQuotaExceed")
        put(client, LINES)  # The SDK itself asks again after a 503.
        assert lines_of(pull_all(client)) == LINES
    assert "refused ServerBusy: 2" in mock.summary


def agent_environment(mock, directory, compression):
    return {
        "PATH": os.environ.get("PATH", ""),
        "LOGFERRY_ENDPOINT": f"http://127.0.0.1:{mock.port}",
        "LOGFERRY_PROJECT": PROJECT,
        "LOGFERRY_LOGSTORE": LOGSTORE,
        "LOGFERRY_PATHS": f"{directory}/share/logs/*.log",
        "LOGFERRY_STATE_DIR": f"{directory}/state",
        "LOGFERRY_COMPRESSION": compression,
        "LOGFERRY_TOPIC": "interop",
        "LOGFERRY_BATCH_LINGER": "100ms",
        "LOGFERRY_LISTEN": "",
        "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET,
        "ALIYUN_LOG_ENV_TAGS": "_pod_name_|_pod_namespace_",
        "ALIYUN_LOGTAIL_USER_DEFINED_ID": "zeta,alpha",
        "_pod_name_": "app-5fqrl",
        "_pod_namespace_": "默认",
    }


def test_decodes_what_the_agent_sent():
    """The agent follows a link to the file; the SDK pulls, decodes, and compares."""
    written = [line for line in LINES if line] + [f"Log {number} to file" for number in range(5000)]
    for compression in COMPRESSIONS:
        with tempfile.TemporaryDirectory() as name, signed_mock("--dir", name) as mock:
            directory = pathlib.Path(name)
            (directory / "data/pod/logs").mkdir(parents=True)
            (directory / "share").mkdir()
            (directory / "share/logs").symlink_to(directory / "data/pod/logs")
            text = "".join(line + "\n" for line in written)
            (directory / "data/pod/logs/app.log").write_bytes(text.encode())
            environment = agent_environment(mock, directory, compression)
            agent = subprocess.Popen([BINARY, "run"], env=environment)
            try:
                client = mock.client()

                def all_lines():
                    assert agent.poll() is None, f"the agent ended with {agent.returncode}"
                    return len(lines_of(pull_all(client, count=100))) >= len(written)

                wait_until(f"the agent's lines over {compression}", all_lines)
                agent.send_signal(signal.SIGTERM)
                assert agent.wait(DEADLINE_SECONDS) == 0, agent.returncode
            finally:
                agent.kill()
                agent.wait()
            groups = pull_all(client)
            assert lines_of(groups) == written, f"over {compression} the lines differ"
            check_agents_groups(groups, directory)
            assert stored_compressions(directory) == {compression}


def stored_compressions(directory):
    """How the groups came, by the mock's own account."""
    text = (directory / "groups.jsonl").read_text()
    return {json.loads(line)["compression"] for line in text.splitlines()}


def check_agents_groups(groups, directory):
    pack_ids = []
    for group in groups:
        tags = tags_of(group)
        assert {pair.Key for log in group.Logs for pair in log.Contents} == {"content"}
        assert group.Topic == "interop" and group.Source, (group.Topic, group.Source)
        named = dict(tags)
        assert len(named) == len(tags), f"a tag is there twice: {tags}"
        assert named["__path__"] == f"{directory}/share/logs/app.log"
        assert named["__hostname__"]
        assert named["__user_defined_id__"] == "alpha zeta"
        assert [tag for tag in tags if tag[0].startswith("_pod")] == [
            ("_pod_name_", "app-5fqrl"), ("_pod_namespace_", "默认")]
        prefix, sequence = re.fullmatch(r"([0-9A-F]+)-([0-9A-F]+)", named["__pack_id__"]).groups()
        pack_ids.append((prefix, int(sequence, 16)))
        assert len({log.Time // 60 for log in group.Logs}) == 1, "a group mixes minutes"
    assert len({prefix for prefix, _ in pack_ids}) == 1
    assert [sequence for _, sequence in pack_ids] == list(range(len(groups))), pack_ids


def main():
    print(f"interop: aliyun-log-python-sdk {SDK_VERSION} against {BINARY}", flush=True)
    tests = [test_writes_and_pulls_back, test_bytes_that_are_not_utf8, test_writes_by_hash_key,
             test_cursor_times, test_queries, test_names, test_refusals, test_faults]
    if "--mock-only" in sys.argv[2:]:
        print("interop: --mock-only: what the agent sends is NOT tested", flush=True)
    else:
        tests.append(test_decodes_what_the_agent_sent)
    for test in tests:
        start = time.monotonic()
        test()
        print(f"  ok {test.__name__[5:].replace('_', ' ')} ({time.monotonic() - start:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
