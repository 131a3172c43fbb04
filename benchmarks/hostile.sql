-- Names that need quoting, keywords, Unicode, views, and names that the grammar itself would invent.
CREATE TABLE "order" ("group" INTEGER PRIMARY KEY, "from" TEXT, "it's" TEXT, "a ""quote""" REAL, "tab	name" TEXT);
CREATE TABLE "Größe 数" (
  "naïve col" TEXT, "😀" INTEGER REFERENCES "order"("group"), "SELECT" TEXT, "end" BLOB, id INTEGER, "two
lines" TEXT
);
CREATE TABLE t2 (
  id INTEGER PRIMARY KEY, cte1 TEXT, x1 TEXT, d1 TEXT, rowid_ TEXT, "group" INTEGER REFERENCES "order"("group")
);
CREATE TABLE cte1 (id INTEGER REFERENCES t2(id), "b]r" TEXT, `back``tick` TEXT, "semi;colon--" TEXT, "/* c */" TEXT);
CREATE TABLE "OFFSET" ("WITH" TEXT, "true" INTEGER, "LIMIT" REAL, offset INTEGER);
CREATE VIEW "a view" AS
  SELECT "order"."group" AS "group", "it's" || 'x' AS "made up", id FROM "order" JOIN t2 USING ("group");
CREATE VIEW totals AS SELECT "group", COUNT(*) AS n FROM t2 GROUP BY "group";
