/**
 * Returns the SQL that creates a ledger's tables, run by the owner of the database. The service's own role may only add
 * rows. It can be run again on a database set up by an older version, and adds the missing parts.
 */
export function postgresSchema(role: string): string {
  return `-- The ledger of Countersign. Run this as the owner of the database, not as the role that the service uses.
BEGIN;
CREATE SCHEMA IF NOT EXISTS countersign;
SET LOCAL search_path = countersign;
CREATE TABLE IF NOT EXISTS entry (
  seq bigint PRIMARY KEY, leaf bytea NOT NULL, body text NOT NULL, type text NOT NULL, environment text NOT NULL);
CREATE TABLE IF NOT EXISTS tile (level int NOT NULL, n bigint NOT NULL, nodes bytea NOT NULL, PRIMARY KEY (level, n));
CREATE TABLE IF NOT EXISTS evidence (sha256 text PRIMARY KEY, bytes text NOT NULL);
CREATE TABLE IF NOT EXISTS subject (commitment text PRIMARY KEY, salt bytea NOT NULL, text text NOT NULL);
CREATE TABLE IF NOT EXISTS checkpoint (size bigint PRIMARY KEY, note text NOT NULL);
-- Batches that replicas hand over to the leader, each row signed by its replica, and where they were recorded.
CREATE TABLE IF NOT EXISTS outbox (
  id uuid PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), batch jsonb NOT NULL);
CREATE TABLE IF NOT EXISTS taken (id uuid PRIMARY KEY, first bigint NOT NULL, at timestamptz NOT NULL DEFAULT now());
-- The random number that a leader draws when it begins: rows are signed for it, and are only valid for that leader.
-- Its session and its heartbeat tell others when they may end its term.
CREATE TABLE IF NOT EXISTS term (nonce text PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp());
ALTER TABLE term ADD COLUMN IF NOT EXISTS replica text, ADD COLUMN IF NOT EXISTS pid int,
  ADD COLUMN IF NOT EXISTS since text, ADD COLUMN IF NOT EXISTS beat timestamptz;
-- New rows must match their digest, no matter who adds them. Existing rows are not checked: readers hash them anyway.
${check('evidence', "sha256 = encode(sha256(convert_to(bytes, 'UTF8')), 'hex')")}
${check('subject', "commitment = 'subject:' || encode(sha256(salt || convert_to(text, 'UTF8')), 'hex')")}
CREATE OR REPLACE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql
  AS $$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$;
${['entry', 'tile', 'evidence'].map(trigger).join('\n')}
GRANT USAGE ON SCHEMA countersign TO ${identifier(role)};
GRANT SELECT, INSERT ON entry, tile, evidence, subject, checkpoint, outbox, taken, term TO ${identifier(role)};
GRANT DELETE ON subject, checkpoint, outbox, taken, term TO ${identifier(role)};
GRANT UPDATE (beat) ON term TO ${identifier(role)};
COMMIT;
`;
}

function trigger(table: string): string {
  return (
    `CREATE OR REPLACE TRIGGER ${table}_is_kept BEFORE UPDATE OR DELETE OR ` +
    `TRUNCATE ON ${table} FOR EACH STATEMENT EXECUTE FUNCTION append_only();`
  );
}

function check(table: string, condition: string): string {
  const name = `${table}_is_hashed`;
  return (
    `ALTER TABLE ${table} DROP CONSTRAINT IF EXISTS ${name}; ` +
    `ALTER TABLE ${table} ADD CONSTRAINT ${name} CHECK (${condition}) NOT VALID;`
  );
}

function identifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
