"""A server without any framework: it listens where PORT says."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Greeter(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer("" if self.path == "/healthz" else "Hello!\n")

    def do_POST(self):
        name = self.rfile.read(int(self.headers["content-length"])).decode().strip()
        print("greets", name)
        self.answer(f"Hello, {name}!\n")

    def answer(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("content-type", "text/plain; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Greeter).serve_forever()
