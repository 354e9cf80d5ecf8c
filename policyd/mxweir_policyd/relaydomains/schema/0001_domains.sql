-- Relay domains, for PostgreSQL 13 and later. Applied by `mxweir domains init`.
--
-- mxweir.domains is the truth; each host keeps a replica of it. A replica asks for what changed since it
-- last looked: by `version`, the id of the transaction that wrote a row. A snapshot says which transactions
-- were still open; whatever it did not show was written by one of them or by a later one. So nothing is
-- missed, in whatever order transactions commit, as it would be by time.

-- The key of a name, also for an index on a table of your own. By `decode`, because the index has to know that the
-- same text always gives the same bytes, which `convert_to` does not promise.
CREATE FUNCTION mxweir.hash(name text) RETURNS bytea
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$ SELECT sha256(decode(replace(name, '\', '\\'), 'escape')) $$;

CREATE TABLE mxweir.domains (
    -- SHA-256 of the name: of one size however long the name is, and spread evenly.
    hash bytea PRIMARY KEY,
    -- As DNS has it: lower-case A-labels (RFC 5890), no dot at the end. `mxweir domains add` folds other forms.
    name text COLLATE "C" NOT NULL,
    -- For people: with U-labels. Empty where it is the same.
    unicode_name text NOT NULL DEFAULT '',
    -- As transport(5) writes it; empty where Postfix knows itself.
    next_hop text NOT NULL DEFAULT '',
    include_subdomains boolean NOT NULL DEFAULT false,
    -- false: kept, and not ours.
    enabled boolean NOT NULL DEFAULT true,
    tenant text NOT NULL DEFAULT '',
    changed timestamptz NOT NULL DEFAULT now(),
    version xid8 NOT NULL DEFAULT pg_current_xact_id(),

    -- Also for who switches triggers off, to load much at once: no lookup would find such a row.
    CONSTRAINT "hash is that of the name" CHECK (hash = mxweir.hash(name)),
    -- The rule of core/mxweir/domains/names.py, for names that are A-labels already.
    CONSTRAINT "name is a mail domain in lower-case A-labels" CHECK (
        name ~ '[.]'
        AND name !~ '[^a-z0-9_.-]|(^|[.])[.-]|-([.]|$)|[.]$|[.][0-9]+$'
        -- The second is slow, and short names need it not.
        AND (octet_length(name) <= 63 OR name !~ '[^.]{64}')
        AND octet_length(name) <= 253
    ),
    CONSTRAINT "next_hop is printable ASCII" CHECK (next_hop ~ '^[!-~]*$' AND octet_length(next_hop) <= 255),
    CONSTRAINT "tenant is short and printable" CHECK (tenant !~ '[[:cntrl:]]' AND octet_length(tenant) <= 255)
);

CREATE INDEX domains_version ON mxweir.domains (version, hash);

-- What was removed, for as long as a replica may be away and still go on where it was.
CREATE TABLE mxweir.removed (
    hash bytea PRIMARY KEY,
    removed timestamptz NOT NULL DEFAULT now(),
    version xid8 NOT NULL DEFAULT pg_current_xact_id()
);

CREATE INDEX removed_version ON mxweir.removed (version, hash);
CREATE INDEX removed_removed ON mxweir.removed (removed);

-- Fills in what nobody needs to write, and what nobody may write otherwise.
CREATE FUNCTION mxweir.stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.name := lower(rtrim(NEW.name, '.'));
    NEW.hash := mxweir.hash(NEW.name);
    NEW.changed := now();
    NEW.version := pg_current_xact_id();
    RETURN NEW;
END $$;

CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON mxweir.domains
    FOR EACH ROW EXECUTE FUNCTION mxweir.stamp();
-- Also where the rows come by logical replication. Triggers for each statement do not fire there: nobody is
-- notified, and what is deleted is not remembered in mxweir.removed; the full comparison finds it.
ALTER TABLE mxweir.domains ENABLE ALWAYS TRIGGER stamp;

-- One notification a transaction, however many rows it changes: the same payload is not sent twice.
CREATE FUNCTION mxweir.poke() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('mxweir_domains', '');
    RETURN NULL;
END $$;

CREATE TRIGGER poke AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON mxweir.domains
    FOR EACH STATEMENT EXECUTE FUNCTION mxweir.poke();

-- The functions below run with the rights of their owner: whoever may change domains need not be able to
-- write the table of what was removed.
CREATE FUNCTION mxweir.forget() RETURNS void LANGUAGE sql AS $$
    -- Ten days more than the replicas count on. Another transaction may be doing the same.
    DELETE FROM mxweir.removed WHERE hash IN (
        SELECT hash FROM mxweir.removed WHERE removed < now() - interval '40 days'
        ORDER BY removed LIMIT 10000 FOR UPDATE SKIP LOCKED)
$$;

CREATE FUNCTION mxweir.note_deleted() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO mxweir.removed (hash) SELECT hash FROM gone ORDER BY hash
        ON CONFLICT (hash) DO UPDATE SET removed = excluded.removed, version = excluded.version;
    PERFORM mxweir.forget();
    RETURN NULL;
END $$;

CREATE TRIGGER note_deleted AFTER DELETE ON mxweir.domains REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION mxweir.note_deleted();

CREATE FUNCTION mxweir.note_renamed() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO mxweir.removed (hash) SELECT hash FROM gone EXCEPT SELECT hash FROM came ORDER BY hash
        ON CONFLICT (hash) DO UPDATE SET removed = excluded.removed, version = excluded.version;
    RETURN NULL;
END $$;

CREATE TRIGGER note_renamed AFTER UPDATE ON mxweir.domains REFERENCING OLD TABLE AS gone NEW TABLE AS came
    FOR EACH STATEMENT EXECUTE FUNCTION mxweir.note_renamed();

CREATE FUNCTION mxweir.note_truncated() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO mxweir.removed (hash) SELECT hash FROM mxweir.domains ORDER BY hash
        ON CONFLICT (hash) DO UPDATE SET removed = excluded.removed, version = excluded.version;
    RETURN NULL;
END $$;

CREATE TRIGGER note_truncated BEFORE TRUNCATE ON mxweir.domains
    FOR EACH STATEMENT EXECUTE FUNCTION mxweir.note_truncated();
