-- The ledger of the first release: user_version 1.
--
-- Released files are never edited: a change of the schema is a new file in migrations/.
-- Times are the wire text (RFC 3339, UTC, six fractional digits, Z), which sorts as time does;
-- structured values are canonical JSON.

PRAGMA application_id = 0x4D544C47; -- "MTLG": a ledger of this service, whatever the file's name

CREATE TABLE ledger (
    -- NULL until everything the executor knows has been read into a new ledger; until then each
    -- start reads it again, so that a crash halfway loses nothing.
    rebuilt_at TEXT
) STRICT;

INSERT INTO ledger VALUES (NULL);

CREATE TABLE jobs (
    -- The order of the list, and the cursor of its pages. Never used again after a removal.
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    id TEXT NOT NULL,
    pipeline TEXT NOT NULL, -- '' where it is not known, so that keys compare by =
    owner TEXT NOT NULL,
    state TEXT NOT NULL,
    ended INTEGER NOT NULL, -- 1 once its end was seen, also when it shows as deleting
    created_at TEXT NOT NULL,
    started_at TEXT,
    finished_at TEXT,
    duration_s REAL,
    exit_code INTEGER,
    attempt INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    executor TEXT NOT NULL,
    image TEXT,
    digest TEXT,
    timeout_s REAL,
    request_digest TEXT NOT NULL,
    stop_asked_at TEXT,
    stop_asked_by TEXT,
    delete_asked_at TEXT,
    delete_asked_by TEXT,
    reason TEXT,
    message TEXT,
    output TEXT,
    resources TEXT NOT NULL,
    warnings TEXT NOT NULL,
    command TEXT NOT NULL,
    parameters TEXT NOT NULL -- last, because it may be long: what stands before is read without it
) STRICT;

-- Not unique: one Idempotency-Key sent at the same time for two pipelines names two jobs of one id.
CREATE INDEX jobs_by_id ON jobs (id);

-- Every list is a walk backwards along one of these (or along the table itself). An index ends in
-- the sequence by itself; a list in all states walks all states at once.
CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX jobs_by_pipeline ON jobs (pipeline, state);
CREATE INDEX jobs_by_owner ON jobs (owner, state);
CREATE INDEX jobs_by_pair ON jobs (pipeline, owner, state);

-- Retention.
CREATE INDEX jobs_by_end ON jobs (finished_at) WHERE ended = 1 AND state <> 'deleting';

-- One row whenever a job's state or reason changed. No endpoint shows them: they are for whoever
-- must find out what happened to a job, and opens the file.
CREATE TABLE transitions (
    job INTEGER NOT NULL, -- jobs.sequence
    number INTEGER NOT NULL, -- counted from 1
    at TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    message TEXT,
    PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;

-- How many jobs there are of each kind. Kept by triggers, so that no write can forget it.
CREATE TABLE tallies (
    pipeline TEXT NOT NULL,
    owner TEXT NOT NULL,
    state TEXT NOT NULL,
    jobs INTEGER NOT NULL,
    PRIMARY KEY (pipeline, owner, state)
) STRICT, WITHOUT ROWID;

-- Between which sequence numbers the jobs of an hour lie. Sequence and time of creation nearly
-- agree, but for a clock that was set and a ledger that was rebuilt: a list bounded in time looks
-- between these numbers only, and checks each job there.
CREATE TABLE hours (
    hour TEXT PRIMARY KEY, -- 2026-01-31T23
    first INTEGER NOT NULL,
    last INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER job_added AFTER INSERT ON jobs BEGIN
    INSERT INTO tallies VALUES (new.pipeline, new.owner, new.state, 1)
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    INSERT INTO hours VALUES (substr(new.created_at, 1, 13), new.sequence, new.sequence)
        ON CONFLICT DO UPDATE SET last = new.sequence;
END;

CREATE TRIGGER job_changed AFTER UPDATE OF state ON jobs WHEN new.state <> old.state BEGIN
    INSERT INTO tallies VALUES (new.pipeline, new.owner, new.state, 1)
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
    UPDATE tallies SET jobs = jobs - 1
        WHERE pipeline = old.pipeline AND owner = old.owner AND state = old.state;
    DELETE FROM tallies
        WHERE pipeline = old.pipeline AND owner = old.owner AND state = old.state AND jobs = 0;
END;

CREATE TRIGGER job_removed AFTER DELETE ON jobs BEGIN
    DELETE FROM transitions WHERE job = old.sequence;
    UPDATE tallies SET jobs = jobs - 1
        WHERE pipeline = old.pipeline AND owner = old.owner AND state = old.state;
    DELETE FROM tallies
        WHERE pipeline = old.pipeline AND owner = old.owner AND state = old.state AND jobs = 0;
END;
