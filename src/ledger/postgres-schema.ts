/** The tables of a ledger in PostgreSQL, to be made once by whoever owns the database; the service's own role may only add. */
export function postgresSchema(role: string): string {
  return `-- The ledger of Countersign. Run by the owner of the database, who is not the role that the service uses.
BEGIN;
CREATE SCHEMA IF NOT EXISTS countersign;
SET LOCAL search_path = countersign;
CREATE TABLE IF NOT EXISTS entry (seq bigint PRIMARY KEY, leaf bytea NOT NULL, body text NOT NULL, type text NOT NULL, environment text NOT NULL);
CREATE TABLE IF NOT EXISTS tile (level int NOT NULL, n bigint NOT NULL, nodes bytea NOT NULL, PRIMARY KEY (level, n));
CREATE TABLE IF NOT EXISTS evidence (sha256 text PRIMARY KEY, bytes text NOT NULL);
CREATE TABLE IF NOT EXISTS subject (commitment text PRIMARY KEY, salt bytea NOT NULL, text text NOT NULL);
CREATE TABLE IF NOT EXISTS checkpoint (size bigint PRIMARY KEY, note text NOT NULL);
-- What replicas hand over to the one that sequences, and what became of it.
CREATE TABLE IF NOT EXISTS outbox (id uuid PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), batch jsonb NOT NULL);
CREATE TABLE IF NOT EXISTS taken (id uuid PRIMARY KEY, first bigint NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE OR REPLACE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$;
${['entry', 'tile', 'evidence'].map(trigger).join('\n')}
GRANT USAGE ON SCHEMA countersign TO ${identifier(role)};
GRANT SELECT, INSERT ON entry, tile, evidence, subject, checkpoint, outbox, taken TO ${identifier(role)};
GRANT DELETE ON subject, checkpoint, outbox, taken TO ${identifier(role)};
COMMIT;
`;
}

function trigger(table: string): string {
  return `CREATE OR REPLACE TRIGGER ${table}_is_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON ${table} FOR EACH STATEMENT EXECUTE FUNCTION append_only();`;
}

function identifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
