-- What every database goes through. Queries are ordered in full, so that there is one right answer.

PRAGMA page_size = 4096;
PRAGMA cache_size = 64; -- pages: much less than the tables take, so that most are read again and again
PRAGMA foreign_keys = ON;

BEGIN;
CREATE TABLE customer (
    id      INTEGER PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    country TEXT NOT NULL,
    parent  INTEGER REFERENCES customer (id)
);
CREATE TABLE product (
    id    INTEGER PRIMARY KEY,
    name  TEXT NOT NULL,
    price REAL NOT NULL CHECK (price > 0),
    stock INTEGER NOT NULL,
    image BLOB
);
CREATE TABLE purchase (
    id       INTEGER PRIMARY KEY,
    customer INTEGER NOT NULL REFERENCES customer (id) ON DELETE CASCADE,
    day      TEXT NOT NULL,
    note     TEXT
);
CREATE TABLE item (
    purchase INTEGER NOT NULL REFERENCES purchase (id) ON DELETE CASCADE,
    product  INTEGER NOT NULL REFERENCES product (id),
    quantity INTEGER NOT NULL,
    PRIMARY KEY (purchase, product)
) WITHOUT ROWID;
CREATE TABLE audit (at INTEGER PRIMARY KEY AUTOINCREMENT, product INTEGER, was INTEGER, became INTEGER);

CREATE INDEX purchase_by_customer ON purchase (customer, day);
CREATE INDEX item_by_product ON item (product, quantity);
CREATE INDEX dear_product ON product (price DESC) WHERE price > 50;
CREATE INDEX customer_by_initial ON customer (substr(name, 1, 1), country);

CREATE TRIGGER stock_changes AFTER UPDATE OF stock ON product BEGIN
    INSERT INTO audit (product, was, became) VALUES (new.id, old.stock, new.stock);
END;
CREATE VIEW line AS
    SELECT purchase.id AS purchase, customer.country, product.id AS product, item.quantity * product.price AS amount
    FROM item
    JOIN purchase ON purchase.id = item.purchase
    JOIN customer ON customer.id = purchase.customer
    JOIN product ON product.id = item.product;
COMMIT;

-- Some thousand rows, from arithmetic that scatters them.
BEGIN;
WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 300)
INSERT INTO customer
SELECT i, printf('%c-%04d', 65 + i * 7 % 26, i * 7919 % 10007),
    CASE i * 31 % 5 WHEN 0 THEN 'BR' WHEN 1 THEN 'DE' WHEN 2 THEN 'IN' WHEN 3 THEN 'KE' ELSE 'NZ' END,
    nullif(i / 3, 0)
FROM n;
WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 150)
INSERT INTO product
SELECT i, 'product ' || hex(i * 40503 % 65536), (i * 7919 % 9973) / 100.0 + 0.25, 500,
    CAST(printf('%.*c', i * 37 % 6000, char(65 + i % 26)) AS BLOB)
FROM n;
COMMIT;

BEGIN;
WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1200)
INSERT INTO purchase
SELECT i, 1 + i * 6151 % 300, date('2024-01-01', (i * 97 % 366) || ' days'),
    CASE WHEN i % 3 THEN printf('%.*c', i % 90, 'x') END
FROM n;
WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
INSERT OR IGNORE INTO item
SELECT 1 + i * 5923 % 1200, 1 + i * 3571 % 150, 1 + i * 13 % 9 FROM n;
COMMIT;

SELECT 'counts', (SELECT count(*) FROM customer), (SELECT count(*) FROM product), (SELECT count(*) FROM purchase),
    (SELECT count(*) FROM item);

UPDATE product SET stock = stock - (SELECT coalesce(sum(quantity), 0) FROM item WHERE item.product = product.id);
INSERT INTO product VALUES (151, 'again', 1.5, 1, x'00ff'), (7, 'known', 1, 1, NULL)
    ON CONFLICT (id) DO UPDATE SET stock = product.stock + 1000;
DELETE FROM customer WHERE id % 4 = 0 AND id NOT IN (SELECT parent FROM customer WHERE parent NOT NULL);

-- A transaction that fails at the end, with one inside it that does not.
BEGIN;
UPDATE product SET price = price * 1.19, name = upper(name) || ' with tax';
SAVEPOINT inner_one;
DELETE FROM purchase WHERE day < '2024-07-01';
SELECT 'within', count(*), min(day) FROM purchase;
ROLLBACK TO inner_one;
SELECT 'after the inner one', count(*), min(day) FROM purchase;
RELEASE inner_one;
DELETE FROM item WHERE quantity < 5;
SELECT 'before the rollback', count(*), sum(quantity) FROM item;
ROLLBACK;
SELECT 'after the rollback', count(*), sum(quantity) FROM item;

-- Joins, grouped.
SELECT country, count(DISTINCT purchase), round(sum(amount), 6) FROM line GROUP BY country ORDER BY country;
SELECT customer.name, count(*), sum(quantity) AS quantity
FROM customer
JOIN purchase ON purchase.customer = customer.id
JOIN item ON item.purchase = purchase.id
JOIN product ON product.id = item.product AND product.price > 50
GROUP BY customer.id
HAVING count(*) > 5
ORDER BY quantity DESC, customer.name
LIMIT 60;
SELECT parent.name, child.name
FROM customer AS parent
LEFT JOIN customer AS child ON child.parent = parent.id AND child.country = parent.country
ORDER BY parent.name, child.name
LIMIT 200;

-- Windows.
SELECT country, purchase, amount,
    sum(amount) OVER (PARTITION BY country ORDER BY purchase ROWS BETWEEN 4 PRECEDING AND CURRENT ROW),
    rank() OVER (PARTITION BY country ORDER BY amount DESC),
    lag(amount) OVER (ORDER BY purchase, country)
FROM (SELECT country, purchase, sum(amount) AS amount FROM line GROUP BY purchase)
ORDER BY country, purchase;

-- The tree of customers below one of them.
WITH RECURSIVE below (id, depth, path) AS (
    SELECT id, 0, name FROM customer WHERE id = 3
    UNION ALL
    SELECT customer.id, depth + 1, path || '/' || customer.name FROM customer JOIN below ON customer.parent = below.id
)
SELECT depth, path FROM below ORDER BY path;

SELECT id, name, price, stock, length(image), hex(substr(image, 1, 4)), image FROM product WHERE id % 10 = 1 ORDER BY id;
SELECT * FROM audit WHERE became < 400 OR was - became > 90 ORDER BY at;
SELECT id, day, typeof(note), note FROM purchase WHERE id % 17 = 0 ORDER BY day DESC, id;

DROP INDEX dear_product;
DELETE FROM audit WHERE at % 2;
VACUUM;
REINDEX;
PRAGMA integrity_check;
SELECT type, name, tbl_name FROM sqlite_schema ORDER BY name;
