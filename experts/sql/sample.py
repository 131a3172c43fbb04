"""The sample database: a shop that sells things for the home and the garden, made up here, the same on every run.

    python -m experts.sql.sample FOLDER

writes ``shop.sqlite`` and ``shop.sql`` (its DDL) into the folder. All names and prices are invented.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from random import Random

DDL = """\
CREATE TABLE categories (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  description TEXT NOT NULL
);
CREATE TABLE suppliers (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  city TEXT NOT NULL,
  country TEXT NOT NULL
);
CREATE TABLE products (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  category_id INTEGER NOT NULL REFERENCES categories (id),
  supplier_id INTEGER NOT NULL REFERENCES suppliers (id),
  price REAL NOT NULL,
  stock INTEGER NOT NULL
);
CREATE TABLE customers (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  email TEXT NOT NULL,
  city TEXT NOT NULL,
  country TEXT NOT NULL,
  age INTEGER,
  signup_date DATE NOT NULL
);
CREATE TABLE orders (
  id INTEGER PRIMARY KEY,
  customer_id INTEGER NOT NULL REFERENCES customers (id),
  order_date DATE NOT NULL,
  status TEXT NOT NULL,
  total REAL NOT NULL
);
CREATE TABLE order_items (
  id INTEGER PRIMARY KEY,
  order_id INTEGER NOT NULL REFERENCES orders (id),
  product_id INTEGER NOT NULL REFERENCES products (id),
  quantity INTEGER NOT NULL,
  price REAL NOT NULL
);
CREATE TABLE shipments (
  id INTEGER PRIMARY KEY,
  order_id INTEGER NOT NULL REFERENCES orders (id),
  carrier TEXT NOT NULL,
  shipped_date DATE NOT NULL,
  delivered_date DATE,
  cost REAL NOT NULL
);
CREATE TABLE reviews (
  id INTEGER PRIMARY KEY,
  product_id INTEGER NOT NULL REFERENCES products (id),
  customer_id INTEGER NOT NULL REFERENCES customers (id),
  rating INTEGER NOT NULL,
  comment TEXT,
  review_date DATE NOT NULL
);
"""

CATALOGUE = {
    "Kitchen": "Pots, pans and tools for cooking: Cast Iron Pan 49, Chef Knife 65, Copper Kettle 89, Bread Board 24, "
    "Espresso Maker 129, Salad Bowl 32, Pepper Mill 27, Baking Tray 19",
    "Furniture": "Tables, chairs and shelves: Oak Table 420, Reading Chair 310, Wall Shelf 75, Coat Stand 68, "
    "Folding Stool 39, Walnut Desk 540, Shoe Rack 46",
    "Lighting": "Lamps for every room: Desk Lamp 58, Floor Lamp 120, Paper Lantern 15, Reading Light 34, "
    "Candle Holder 18, Ceiling Light 145",
    "Garden": "Tools and pots for outside: Watering Can 29, Garden Fork 36, Clay Pot 12, Wheelbarrow 95, "
    "Bird House 33, Pruning Shears 41, Rain Barrel 110, Garden Bench 230",
    "Textiles": "Cloth for the house: Wool Blanket 99, Linen Sheet 85, Cotton Towel 16, Door Mat 22, Silk Cushion 44, "
    "Kitchen Apron 26, Table Runner 31",
    "Office": "Paper and desk things: Fountain Pen 38, Leather Notebook 28, Desk Clock 52, Letter Tray 21, "
    "Pencil Case 14, Paper Knife 17",
    "Toys": "Games and toys of wood: Building Blocks 35, Chess Set 72, Spinning Top 9, Wooden Train 48, Puzzle Box 23, "
    "Rocking Horse 160",
    "Storage": "Boxes and baskets: Willow Basket 37, Tin Box 11, Laundry Basket 45, Glass Jar 8, Tool Chest 135, "
    "Wine Rack 79",
}
SUPPLIERS = """
Nordic Wood|Oslo|Norway; Alpine Iron|Graz|Austria; Porto Ceramics|Porto|Portugal; Lumen Works|Lyon|France;
Greenfield Tools|Leeds|United Kingdom; Loom and Thread|Ghent|Belgium; Baltic Paper|Riga|Latvia;
Old Town Toys|Prague|Czech Republic; Copperline|Sofia|Bulgaria; Harbour Glass|Gdansk|Poland; Casa Verde|Valencia|Spain;
Fjord Textiles|Bergen|Norway
"""
PLACES = """
Berlin|Germany Hamburg|Germany Munich|Germany Paris|France Lyon|France Madrid|Spain Valencia|Spain Rome|Italy
Milan|Italy London|United_Kingdom Leeds|United_Kingdom
Vienna|Austria Graz|Austria Oslo|Norway Bergen|Norway Lisbon|Portugal
Porto|Portugal Dublin|Ireland Warsaw|Poland Zurich|Switzerland
"""
FIRST = """
Anna Ben Clara David Elena Felix Greta Hugo Ines Jonas Klara Liam Maria Noah Olga Paul Rosa Simon Tessa Victor Wendy
Yusuf Zoe Adam Bianca Carlos Dora Emil Fiona George Hanna Ivan Julia Kevin Laura Marco Nina Oscar Petra Quentin
"""
LAST = """
Adler Bauer Costa Dubois Evans Fischer Garcia Hansen Ivanov Jensen Keller Lopez Meyer Novak Olsen Peters Quinn Rossi
Silva Turner Ullman Vogel Walsh Young Ziegler Moreau Byrne Kowalski Marino Schmid
"""
CARRIERS = ("Swift Post", "Parcel Star", "Green Wheels", "Harbour Freight")
COMMENTS = {
    1: ("Broke after a week", "Not what I ordered"),
    2: ("Smaller than expected", "The colour is off"),
    3: ("Does what it should", None),
    4: ("Good value", "Well made", None),
    5: ("A joy to use", "Would buy again", "Beautiful work", None),
}
STATUSES = ("delivered",) * 12 + ("shipped",) * 3 + ("pending",) * 2 + ("cancelled",) * 2 + ("returned",)
FIRST_DAY = date(2023, 1, 2)
DAYS = 1000
CUSTOMERS, ORDERS, REVIEWS = 120, 420, 220

Row = tuple[object, ...]


def rows() -> dict[str, list[Row]]:
    """Every row of every table, in the order of the DDL."""
    random = Random(20230102)
    tables: dict[str, list[Row]] = {"categories": [], "suppliers": [], "products": []}
    for entry in SUPPLIERS.split(";"):
        tables["suppliers"].append((len(tables["suppliers"]) + 1, *entry.strip().split("|")))
    for category, text in CATALOGUE.items():
        description, _, products = text.partition(": ")
        tables["categories"].append((len(tables["categories"]) + 1, category, description))
        for product in products.split(", "):
            name, _, price = product.rpartition(" ")
            supplier = random.randrange(len(tables["suppliers"])) + 1
            cents = random.choice((0.0, 0.5, 0.9, 0.95))
            stock = random.choice((0, random.randrange(5, 60), random.randrange(20, 300)))
            number = len(tables["products"]) + 1
            tables["products"].append((number, name, len(tables["categories"]), supplier, float(price) + cents, stock))
    tables["customers"] = _customers(random)
    _orders(random, tables)
    tables["reviews"] = _reviews(random, tables)
    return tables


def build(folder: Path) -> Path:
    """Write ``shop.sqlite`` and ``shop.sql`` into ``folder``; the database's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shop.sql").write_text(DDL, encoding="utf-8")
    path = folder / "shop.sqlite"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as db:
        db.executescript("PRAGMA foreign_keys = ON; PRAGMA page_size = 4096;" + DDL)
        for table, held in rows().items():
            marks = ", ".join("?" * len(held[0]))
            db.executemany(f"INSERT INTO {table} VALUES ({marks})", held)  # noqa: S608 - our own names
        db.commit()
        db.execute("VACUUM")
    return path


def _customers(random: Random) -> list[Row]:
    pairs = [(first, last) for first in FIRST.split() for last in LAST.split()]
    random.shuffle(pairs)
    places = [place.replace("_", " ").split("|") for place in PLACES.split()]
    customers: list[Row] = []
    for number, (first, last) in enumerate(pairs[:CUSTOMERS], start=1):
        city, country = places[int(len(places) * random.random() ** 1.6)]
        age = None if random.random() < 0.05 else random.randrange(19, 78)
        signup = FIRST_DAY + timedelta(days=random.randrange(DAYS - 200))
        email = f"{first}.{last}@example.com".lower()
        customers.append((number, f"{first} {last}", email, city, country, age, signup.isoformat()))
    return customers


def _orders(random: Random, tables: dict[str, list[Row]]) -> None:
    """Add orders with their items and shipments: dates follow sign-up, totals are the sum of the items."""
    orders, items, shipments = (tables.setdefault(name, []) for name in ("orders", "order_items", "shipments"))
    bought = []
    for _ in range(ORDERS):
        customer = int((CUSTOMERS - 6) * random.random() ** 1.5)
        signup = date.fromisoformat(str(tables["customers"][customer][6]))
        span = (FIRST_DAY + timedelta(days=DAYS) - signup).days
        bought.append((signup + timedelta(days=random.randrange(span)), customer + 1))
    for number, (day, customer) in enumerate(sorted(bought), start=1):
        status = random.choice(STATUSES)
        total = 0.0
        for product in random.sample(tables["products"], random.choice((1, 1, 2, 2, 3, 4))):
            quantity, price = random.choice((1, 1, 1, 2, 3, 6)), float(str(product[4]))
            items.append((len(items) + 1, number, product[0], quantity, price))
            total += quantity * price
        orders.append((number, customer, day.isoformat(), status, round(total, 2)))
        if status in ("delivered", "shipped", "returned"):
            shipped = day + timedelta(days=random.randrange(1, 5))
            arrived = None if status == "shipped" else (shipped + timedelta(days=random.randrange(1, 9))).isoformat()
            cost = round(3.9 + total * 0.02 + random.randrange(5), 2)
            shipments.append((len(shipments) + 1, number, random.choice(CARRIERS), shipped.isoformat(), arrived, cost))


def _reviews(random: Random, tables: dict[str, list[Row]]) -> list[Row]:
    """Reviews by customers of what they were sent, after they ordered it."""
    delivered = {order[0]: order for order in tables["orders"] if order[3] in ("delivered", "returned")}
    chosen = random.sample([item for item in tables["order_items"] if item[1] in delivered], REVIEWS)
    reviews: list[Row] = []
    for number, item in enumerate(sorted(chosen), start=1):
        order = delivered[item[1]]
        rating = random.choice((1, 2, 3, 3, 4, 4, 4, 5, 5, 5, 5))
        day = date.fromisoformat(str(order[2])) + timedelta(days=random.randrange(14, 60))
        comment = random.choice(COMMENTS[rating])
        reviews.append((number, item[2], order[1], rating, comment, day.isoformat()))
    return reviews


if __name__ == "__main__":
    build(Path(sys.argv[1]))
