"""Web workers that open a lookup of a million entries when they start: one copy in memory, in no time.

Run it: python examples/files_web.py
"""

import concurrent.futures
import http.server
import os
import tempfile
import time
import urllib.request

import mori

ENTRIES = 1_000_000
WORKERS = 4


class Handler(http.server.BaseHTTPRequestHandler):
    lookup: dict[str, int]

    def do_GET(self) -> None:
        answer = str(self.lookup.get(self.path[1:], "unknown")).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None: ...


def work(path: str) -> tuple[int, float]:
    """Start as a worker of a web server does; answer one request, and say how long the start took."""
    started = time.perf_counter()
    Handler.lookup = mori.load(path)
    seconds = time.perf_counter() - started
    with (
        http.server.HTTPServer(("127.0.0.1", 0), Handler) as server,
        concurrent.futures.ThreadPoolExecutor(1) as client,
    ):
        url = f"http://127.0.0.1:{server.server_port}/user-{ENTRIES - 1}"
        answer = client.submit(lambda: urllib.request.urlopen(url, timeout=10).read())
        server.handle_request()
        return int(answer.result()), seconds


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "users.mori")
        mori.save({f"user-{number}": number for number in range(ENTRIES)}, path)
        with concurrent.futures.ProcessPoolExecutor(WORKERS) as pool:
            for answer, seconds in pool.map(work, [path] * WORKERS):
                print(f"answered {answer:,}; opened {ENTRIES:,} entries in {seconds * 1000:.1f} ms")
