"""A WebSocket client of another making: scenarios of websocket.rs, run as
`python3 websocket.py SCENARIO HOST:PORT`. An assertion that fails is the exit code."""

import base64
import json
import os
import socket
import struct
import sys
import urllib.request

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

LIMIT = 60


def post(address, path, body):
    request = urllib.request.Request(f"http://{address}{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=LIMIT) as reply:
        return json.load(reply)


def subscribe(address, name, topic="t", **more):
    post(address, "/subscribe", {"id": name, "topics": [topic], **more})


def dial(address, name, **more):
    return connect(f"ws://{address}/subscriptions/{name}/ws", max_size=None, **more)


def say(ws, kind, **fields):
    ws.send(json.dumps({"type": kind, **fields}))


def hear(ws, kind):
    frame = json.loads(ws.recv(timeout=LIMIT))
    assert frame["type"] == kind, frame
    return frame


def closed(ws):
    try:
        while True:
            ws.recv(timeout=LIMIT)
    except ConnectionClosed as end:
        return end.rcvd.code if end.rcvd else None


def round_trip(address):
    subscribe(address, "s")
    with dial(address, "s") as ws:
        for number in range(3):
            say(ws, "publish", ref=str(number), topic="t", id=f"m-{number}", payload=f"p{number}")
            answer = hear(ws, "published")
            assert (answer["ref"], answer["offset"], answer["stored"]) == (str(number), number, "yes")
        say(ws, "publish", topic="t", id="m-0", payload="again")
        answer = hear(ws, "published")
        assert answer["duplicate"] is True and "ref" not in answer, answer
        # Nothing came before credit, and no more comes than there is credit for.
        say(ws, "credit", messages=1)
        got = [hear(ws, "message")]
        say(ws, "credit", messages=1)
        got.append(hear(ws, "message"))
        say(ws, "ack", tokens=[one["ack_token"] for one in got], ref="done")
        answer = hear(ws, "acked")
        assert (answer["acked"], answer["expired"], answer["ref"]) == (2, [], "done"), answer
        say(ws, "credit", messages=5000)
        got.append(hear(ws, "message"))
        assert [one["payload"] for one in got] == ["p0", "p1", "p2"], got
        assert [one["attempt"] for one in got] == [1, 1, 1], got
        # The rest of the credit waits for what is published later, by anybody.
        post(address, "/publish", {"topic": "t", "payload": "later"})
        assert hear(ws, "message")["payload"] == "later"


def pipelined(address):
    subscribe(address, "s", topic="other")
    with dial(address, "s") as ws:
        for number in range(500):
            say(ws, "publish", ref=str(number), topic="t", key="k", payload="x")
        answers = [hear(ws, "published") for _ in range(500)]
        offsets = {answer["ref"]: answer["offset"] for answer in answers}
        assert offsets == {str(number): number for number in range(500)}, offsets


def malformed(address):
    subscribe(address, "s")
    with dial(address, "s") as ws:
        for text in ["", "{", "[]", "{}", '{"type":"nod"}', '{"type":"credit","messages":-1}']:
            ws.send(text)
            problem = hear(ws, "problem")["problem"]
            assert problem["status"] == 400 and problem["detail"], problem
        say(ws, "publish", ref="r", topic="a b", payload="x", id="mine")
        answer = hear(ws, "problem")
        assert (answer["ref"], answer["problem"]["stored"], answer["problem"]["id"]) == ("r", "no", "mine")
        say(ws, "ack", ref="r", tokens=["x"])
        assert hear(ws, "problem")["problem"]["status"] == 422
        # The conversation goes on until a frame is of the wrong kind.
        say(ws, "publish", topic="t", payload="x")
        hear(ws, "published")
        ws.send(b"bytes")
        assert closed(ws) == 1003
    with dial(address, "s") as ws:
        # A client that still writes may find the connection gone before it reads why.
        try:
            ws.send("x" * (11 << 20))
        except ConnectionClosed:
            pass
        assert closed(ws) in (1009, None)


def slow_reader(address):
    subscribe(address, "slow")
    subscribe(address, "quick")
    # It takes one frame off the socket, and then no more until it is asked to.
    with dial(address, "slow", max_queue=1) as slow, dial(address, "quick") as quick:
        say(slow, "credit", messages=1000)
        say(quick, "credit", messages=1000)
        for number in range(200):
            post(address, "/publish", {"topic": "t", "payload": f"{number} " + "x" * 100_000})
            message = hear(quick, "message")
            assert message["offset"] == number, message["offset"]
            say(quick, "ack", tokens=[message["ack_token"]])
            assert hear(quick, "acked")["acked"] == 1
        # Once it reads, it gets all of it. Acknowledgements make room for the rest.
        seen, acked = [], 0
        while len(seen) < 200 or acked < 200:
            frame = json.loads(slow.recv(timeout=LIMIT))
            if frame["type"] == "acked":
                acked += frame["acked"]
                continue
            seen.append(frame["offset"])
            say(slow, "ack", tokens=[frame["ack_token"]])
        assert seen == list(range(200)), seen


def raw(address, name):
    host, port = address.split(":")
    plain = socket.create_connection((host, int(port)), timeout=LIMIT)
    key = base64.b64encode(os.urandom(16)).decode()
    plain.sendall(
        f"GET /subscriptions/{name}/ws HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\n"
        f"upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n".encode()
    )
    reader = plain.makefile("rb")
    assert b" 101 " in reader.readline()
    while reader.readline() != b"\r\n":
        pass
    return plain, reader


def read_frame(reader):
    head = reader.read(2)
    if len(head) < 2:
        return None
    assert head[1] < 126, "control frames are short"
    return head[0] & 15, reader.read(head[1])


def masked(opcode, payload):
    return struct.pack("!BBI", 0x80 | opcode, 0x80 | len(payload), 0) + payload


def broken_frames(address):
    subscribe(address, "s")
    for sent, code in [
        (b"\x81\x02{}", 1002),  # not masked
        (masked(3, b""), 1002),  # no such kind of frame
        (masked(1, b"\xff\xfe"), 1007),  # not UTF-8
    ]:
        plain, reader = raw(address, "s")
        plain.sendall(sent)
        opcode, payload = read_frame(reader)
        assert (opcode, struct.unpack("!H", payload[:2])[0]) == (8, code), (sent, opcode, payload)
        assert read_frame(reader) is None
    # A part of a frame, and then nothing: not an end, and no harm to others.
    plain, reader = raw(address, "s")
    plain.sendall(masked(1, b'{"type":"credit","messages":1}')[:9])
    with dial(address, "s") as ws:
        say(ws, "publish", topic="t", payload="x")
        hear(ws, "published")
    plain.close()


def half_closed(address):
    subscribe(address, "s")
    plain, reader = raw(address, "s")
    # It is asked whether it is there.
    assert read_frame(reader) == (9, b"")
    plain.sendall(masked(10, b""))
    # It says nothing more but would listen: the node does not go on talking to it.
    plain.shutdown(socket.SHUT_WR)
    while read_frame(reader) is not None:
        pass


def stopped(address):
    subscribe(address, "s")
    with dial(address, "s") as ws:
        say(ws, "credit", messages=10)
        say(ws, "publish", topic="other", payload="x")
        hear(ws, "published")
        print("open", flush=True)
        assert closed(ws) == 1001


globals()[sys.argv[1]](sys.argv[2])
