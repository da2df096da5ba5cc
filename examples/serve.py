"""Serve the model that the alias `production` names, and load another when the alias moves: no restart.

    python serve.py --store model_versions --port 8000
    curl 'http://localhost:8000/?x=1,2,3,4'
    mvc promote best production                  # the next answer comes from another version

The model is one layer, so that the example is short. `restore_version` takes yours the same way.
"""

from __future__ import annotations

import argparse
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import torch

from mvc_callbacks import VersionStore, restore_version


class Served:
    """The model that answers, and its version: replaced as one, so that no request sees half of each."""

    def __init__(self) -> None:
        self.now: tuple[str, torch.nn.Module] | None = None

    def follow(self, store: VersionStore, alias: str) -> None:
        """Load each version that the alias comes to point to."""
        for version in store.watch(alias, every=0.2):
            try:
                model = restore_version(version.id, torch.nn.Linear(4, 1), store=store.path).eval()
            except Exception as error:  # the old model goes on answering
                print(f"{version.run}/{version.number} cannot be served: {error}", flush=True)
                continue
            self.now = (f"{version.run}/{version.number}", model)
            print(f"serving {self.now[0]}", flush=True)


def handler(served: Served) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if served.now is None:
                return self.answer(503, {"error": "no version is served yet"})
            name, model = served.now
            try:
                numbers = [float(each) for each in parse_qs(urlparse(self.path).query)["x"][0].split(",")]
                with torch.inference_mode():
                    found = model(torch.tensor(numbers)).item()
            except (KeyError, ValueError, RuntimeError):
                return self.answer(400, {"error": "give ?x=1,2,3,4"})
            return self.answer(200, {"version": name, "y": found})

        def answer(self, status: int, told: dict[str, object]) -> None:
            body = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--store")
    parser.add_argument("--alias", default="production")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    served = Served()
    threading.Thread(
        target=served.follow, args=(VersionStore(arguments.store), arguments.alias), daemon=True
    ).start()
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), handler(served))
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever()
