-- The transaction in the middle of which the power fails. It changes more pages than fit into the cache, so that SQLite
-- writes to the database before it commits.
PRAGMA cache_size = 10;
BEGIN;
UPDATE purchase SET note = 'never committed ' || id, day = '1999-12-31';
UPDATE item SET quantity = quantity + 1000;
DELETE FROM product WHERE id NOT IN (SELECT product FROM item);
UPDATE product SET stock = -1, image = zeroblob(5000);
COMMIT;
