"""A worker or the collector of a workflow, as a process of its own: `python -I -S tests/farm_worker.py JSON`.

It speaks RESP over a bare socket, so that fifty of them start in a moment. `pace` is the clock's seconds in a second of the wall.
"""

import json
import signal
import socket
import sys
import time

SPEC = json.loads(sys.argv[1])
STOP = []


class Redis:
    def __init__(self, host, port, database):
        self.socket = socket.create_connection((host, port))
        self.file = self.socket.makefile("rb")
        self.ask("SELECT", str(database))

    def ask(self, *parts):
        data = [str(part).encode() for part in parts]
        self.socket.sendall(b"*%d\r\n" % len(data) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in data))
        return self.answer()

    def answer(self):
        line = self.file.readline()
        if not line:
            sys.exit(0)
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self.answer() for _ in range(int(rest))]
        return rest


def now():
    """Seconds since the start of the program, by the clock of whoever feeds the queue."""
    begin, mark = SPEC["clock"]
    started = float(redis.ask("GET", "workflow:program_start_time") or begin)
    return begin + (time.monotonic() - mark) * SPEC["pace"] - started


def work(task):
    time.sleep(task["task_processing_time_simulated"] / SPEC["pace"])
    done = now()
    kept = ("task_id", "task_application", "task_priority", "task_gen_timestamp", "task_deadline", "task_emit_timestamp")
    result = {key: task[key] for key in kept}
    result |= {"task_work_time": done - task["task_emit_timestamp"], "task_work_timestamp": done, "status": "completed"}
    result |= {"processing_time": task["task_processing_time_simulated"], "image_size": task["task_data_size"]}
    result["worker"] = SPEC["pod_name"]
    redis.ask("LPUSH", "result_queue", json.dumps(result))


def collect(result):
    done = now()
    result["task_collect_time"] = done - result["task_work_timestamp"]
    result["task_collect_timestamp"] = done
    result["task_completion_time"] = done - result["task_gen_timestamp"]
    result["task_QoS"] = result["task_completion_time"] <= result["task_deadline"]
    redis.ask("LPUSH", "output_queue", json.dumps(result))


def worker():
    if SPEC["says_started"]:
        redis.ask("LPUSH", "worker_start_queue", json.dumps({"type": "START", "pod_name": SPEC["pod_name"]}))
    while not STOP:
        found = redis.ask("BRPOP", "worker_control_syn_queue", "worker_queue", "0.5")
        if found is None:
            continue
        body = json.loads(found[1])
        if found[0] == b"worker_queue":
            work(body)
        elif body["action"] == "SYN":
            ack = {"type": "SCALE_DOWN", "action": "ACK", "ack_timestamp": now(), "task_id": body.get("task_id")}
            ack |= {"pod_name": SPEC["pod_name"], "message": "Worker pod is exiting as instructed."}
            redis.ask("LPUSH", "worker_control_ack_queue", json.dumps(ack))
            return


def collector():
    while not STOP:
        found = redis.ask("BRPOP", "result_queue", "0.5")
        if found is not None:
            collect(json.loads(found[1]))


if __name__ == "__main__":
    # What is at work is finished first.
    signal.signal(signal.SIGTERM, lambda *_: STOP.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    redis = Redis(*SPEC["redis"])
    collector() if SPEC["kind"] == "collector" else worker()
