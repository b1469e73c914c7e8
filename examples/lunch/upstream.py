"""A stand-in for a slow menu service: a few restaurants on two campuses, today's dishes, and a delay.

Run it: python3 upstream.py [--port 9100] [--latency 0.05]. It counts what it was asked; GET /count says how often. It
also has the page that describes the API, docs.html.
"""

import argparse
import datetime
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

# campus, identifier, name, latitude, longitude
RESTAURANTS = [
    ("Solna", "svarta", "Svarta Räfven", 59.3487, 18.0261),
    ("Solna", "jorpes", "Restaurang Jorpes", 59.3483, 18.0277),
    ("Solna", "haga", "Haga Gård", 59.3496, 18.0221),
    ("Solna", "glada", "Den Glada Restaurangen", 59.3520, 18.0325),
    ("Solna", "nanna", "Nanna Svartz", 59.3485, 18.0236),
    ("Solna", "biomedicum", "Biomedicum Café", 59.3480, 18.0268),
    ("Uppsala", "bikupan", "Bikupan", 59.8424, 17.6361),
    ("Uppsala", "dufva", "Café Dufva", 59.8415, 17.6356),
    ("Uppsala", "hubben", "Hubben", 59.8430, 17.6389),
    ("Uppsala", "rudbeck", "Rudbeck Lunch", 59.8440, 17.6400),
    ("Uppsala", "tallrik", "Tallriket", 59.8406, 17.6479),
]

DISHES = [
    ("Pannbiff med löksås och lingon", "Beef patty with onion gravy and lingonberries"),
    ("Stekt strömming med potatismos", "Fried herring with mashed potatoes"),
    ("Ärtsoppa och pannkakor", "Pea soup and pancakes"),
    ("Vegetarisk lasagne", "Vegetarian lasagne"),
    ("Ugnsbakad lax med dillsås", "Baked salmon with dill sauce"),
    ("Kikärtsgryta med spenat", "Chickpea stew with spinach"),
    ("Raggmunk med fläsk", "Potato pancake with pork"),
    ("Thaicurry med kyckling", "Thai curry with chicken"),
    ("Rotfruktsbiffar med aioli", "Root vegetable patties with aioli"),
    ("Köttbullar med gräddsås", "Meatballs with cream sauce"),
    ("Falafel med hummus", "Falafel with hummus"),
    ("Fiskgratäng med räkor", "Fish gratin with shrimps"),
]


PAGES = {"/docs": ("docs.html", "text/html; charset=utf-8"), "/openapi.json": ("openapi.json", "application/json")}


def home(identifier: str) -> str:
    return f"https://lunch.example/{identifier}"


def listed(campus: str, identifier: str, name: str, latitude: float, longitude: float) -> dict:
    return {
        "campus": campus,
        "identifier": identifier,
        "menu_url": f"{home(identifier)}/menu",
        "name": name,
        "osm": f"https://www.openstreetmap.org/?mlat={latitude}&mlon={longitude}#map=18/{latitude}/{longitude}",
        "url": home(identifier),
    }


def menu(identifier: str, day: datetime.date) -> list[dict]:
    """Three dishes, the same for everyone who asks on that day. One kitchen is being rebuilt."""
    if identifier == "rudbeck":
        return []
    first = (sum(identifier.encode()) + day.toordinal() * 5) % len(DISHES)
    chosen = (DISHES[(first + step * 5) % len(DISHES)] for step in range(3))
    return [{"dish_sv": swedish, "dish_en": english} for swedish, english in chosen]


def detailed(campus: str, identifier: str, name: str, latitude: float, longitude: float) -> dict:
    return {
        "location": campus,
        "map_url": f"https://www.openstreetmap.org/?mlat={latitude}&mlon={longitude}#map=18/{latitude}/{longitude}",
        "menu": menu(identifier, datetime.date.today()),
        "title": name,
        "url": home(identifier),
    }


class Count:
    """How many requests there were, counted by many threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value = 0

    def add(self) -> None:
        with self.lock:
            self.value += 1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one packet: two small ones would wait for each other.
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    latency = 0.05
    count = Count()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.rstrip("/")
        if path == "/count":
            self.answer(200, {"requests": self.count.value})
            return
        if path in PAGES:
            name, kind = PAGES[path]
            self.send(200, (Path(__file__).resolve().parent / name).read_bytes(), kind)
            return
        self.count.add()
        time.sleep(self.latency)
        if path == "/api/restaurant":
            self.answer(200, {"restaurants": [listed(*restaurant) for restaurant in RESTAURANTS]})
            return
        if path == "/api/version":
            self.answer(200, {"version": "21.5.0"})
            return
        for restaurant in RESTAURANTS:
            if path == f"/api/restaurant/{restaurant[1]}":
                self.answer(200, {"restaurant": detailed(*restaurant)})
                return
        self.answer(404, {"error": f"there is nothing at {path}"})

    def answer(self, status: int, content: dict) -> None:
        self.send(status, json.dumps(content, ensure_ascii=False).encode(), "application/json")

    def send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing about each request."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in for a slow menu service.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9100)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before each answer")
    arguments = parser.parse_args()
    Handler.latency = arguments.latency
    server = Server((arguments.host, arguments.port), Handler)
    print(f"menus at http://127.0.0.1:{server.server_port}/api/restaurant", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
