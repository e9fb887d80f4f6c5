"""LangGraph with its SQLite saver, for `cargo xtask bench graph --anchors`.

A line of standard input asks for a run, and a line of standard output tells what it took:
{"dir": an empty directory, "layers": 40, "width": 50, "count": false}
{"nodes_per_s": 318.0, "db_mb": 14.4, "version": "1.2.22"}

One process for all rounds, so that only the first, which is not counted, pays for imports.
"""

import os

# Set by a user, they would have every node reported to a server.
for tracing in ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING_V2"):
    os.environ[tracing] = "false"

import collections
import importlib.metadata
import json
import sqlite3
import sys
import time
from typing import TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph

# As the engine's `Work::layered`.
PARENTS = 3


class State(TypedDict):
    n: int


def build(layers, width, count, ran):
    """Nodes that do nothing, or that `count` in the state; each after three of the layer before."""
    graph = StateGraph(State)

    def name(layer, i):
        return f"t/{layer}/{i % width}"

    def node(me):
        def body(state):
            ran[me] += 1
            return {"n": state["n"] + 1} if count else None

        return body

    for layer in range(layers):
        for i in range(width):
            me = name(layer, i)
            graph.add_node(me, node(me))
            if layer == 0:
                graph.add_edge(START, me)
            else:
                # Not one edge that waits for all: layers are its steps, and this it does faster.
                for parent in range(PARENTS):
                    graph.add_edge(name(layer - 1, i + parent), me)
    return graph


def durable(conn):
    """As durable as `PowerLoss` is, else the comparison is none."""
    conn.execute("PRAGMA synchronous=FULL")
    mode = conn.execute("PRAGMA journal_mode").fetchone()[0]
    level = conn.execute("PRAGMA synchronous").fetchone()[0]
    if (mode, level) != ("wal", 2):
        sys.exit(f"LangGraph's database is at {mode}, synchronous {level}; not WAL, FULL")


def run(dir, layers, width, count):
    path = os.path.join(dir, "langgraph.db")
    # Its writes come from threads of a pool.
    conn = sqlite3.connect(path, check_same_thread=False)
    saver = SqliteSaver(conn)
    saver.setup()
    durable(conn)
    ran = collections.Counter()
    app = build(layers, width, count, ran).compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "run"}, "recursion_limit": layers + 10}
    begin = time.perf_counter()
    out = app.invoke({"n": 0}, config, durability="sync")
    took = time.perf_counter() - begin
    nodes = layers * width
    if len(ran) != nodes or set(ran.values()) != {1}:
        sys.exit(f"LangGraph ran {len(ran)} of {nodes} nodes, {ran.total()} times in all")
    if count and out["n"] != nodes:
        sys.exit(f"LangGraph counted {out['n']} of {nodes} nodes")
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    conn.close()
    return {
        "nodes_per_s": nodes / took,
        "db_mb": os.path.getsize(path) / 1e6,
        "version": importlib.metadata.version("langgraph"),
    }


for line in sys.stdin:
    print(json.dumps(run(**json.loads(line))), flush=True)
