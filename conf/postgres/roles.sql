-- Who may do what with the relay domains: run it with psql as the owner of the database or a superuser, after
-- `mxweir domains init` and again after `mxweir domains upgrade`. It may be run twice.
--
--   mxweir_reader  the daemons ([postgres] dsn): read, and be notified
--   mxweir_writer  mxweir domains import | add | remove (--dsn), and whatever program of yours keeps the table
--
-- Neither has a password yet: \password mxweir_reader, or `peer` and `cert` in pg_hba.conf.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['mxweir_reader', 'mxweir_writer'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', name);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), name);
    END LOOP;
    -- An import puts the file into a temporary table first.
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO mxweir_writer', current_database());
END $$;

REVOKE ALL ON SCHEMA mxweir FROM PUBLIC;
GRANT USAGE ON SCHEMA mxweir TO mxweir_reader, mxweir_writer;
GRANT SELECT ON mxweir.domains, mxweir.removed, mxweir.migrations TO mxweir_reader, mxweir_writer;
GRANT INSERT, UPDATE, DELETE ON mxweir.domains TO mxweir_writer;
