-- Everything the ledger asks of its database: the whole data access in one sitting.
-- A query begins with a line "-- its_name --". Values are always bound, never pasted in.

-- entry_by_name --
-- One job by its unique name.
SELECT * FROM jobs WHERE name = :name;

-- entry_by_id --
-- One job by its UUID; of several (see the index) the first that was accepted.
SELECT * FROM jobs WHERE id = :id ORDER BY sequence LIMIT 1;

-- request_digest --
-- To tell a repeat from another request with the same key.
SELECT request_digest FROM jobs WHERE name = :name;

-- newest --
-- The highest sequence number in use, 0 if there is none.
SELECT coalesce(max(sequence), 0) FROM jobs;

-- add --
-- A job seen for the first time.
INSERT INTO jobs (
    name, id, pipeline, owner, state, ended, created_at, started_at, finished_at, duration_s,
    exit_code, attempt, namespace, executor, image, digest, timeout_s, request_digest, reason,
    message, output, resources, warnings, command, parameters
) VALUES (
    :name, :id, :pipeline, :owner, :state, :ended, :created_at, :started_at, :finished_at,
    :duration_s, :exit_code, :attempt, :namespace, :executor, :image, :digest, :timeout_s,
    :request_digest, :reason, :message, :output, :resources, :warnings, :command, :parameters
);

-- change --
-- What an observation or a question may change; everything else of a job is fixed.
UPDATE jobs SET
    state = :state, ended = :ended, reason = :reason, message = :message,
    started_at = :started_at, finished_at = :finished_at, duration_s = :duration_s,
    exit_code = :exit_code, attempt = :attempt, output = :output,
    digest = :digest
WHERE sequence = :sequence;

-- note_transition --
-- The next line of a job's history.
INSERT INTO transitions
SELECT
    :sequence, coalesce((SELECT max(number) FROM transitions WHERE job = :sequence), 0) + 1,
    :at, :state, :reason, :message;

-- transitions --
-- A job's history, oldest first.
SELECT at, state, reason, message FROM transitions
WHERE job = (SELECT sequence FROM jobs WHERE name = :name)
ORDER BY number;

-- note_stop --
-- Who asked for a stop; the first who did.
UPDATE jobs SET stop_asked_at = :at, stop_asked_by = :by WHERE sequence = :sequence;

-- note_delete --
-- Who asked for removal; the first who did.
UPDATE jobs SET delete_asked_at = :at, delete_asked_by = :by WHERE sequence = :sequence;

-- remove --
-- A trigger takes the history along.
DELETE FROM jobs WHERE sequence = :sequence;

-- active --
-- Jobs that an executor should still know, but for those being deleted.
SELECT * FROM jobs
WHERE state IN ('pending', 'running', 'stopping') AND sequence <= :up_to ORDER BY sequence;

-- names_in_state --
-- Oldest first.
SELECT name FROM jobs WHERE state = :state ORDER BY sequence;

-- ended_before --
-- For retention: the longest ended first.
SELECT name FROM jobs
WHERE ended = 1 AND state <> 'deleting' AND finished_at < :moment ORDER BY finished_at LIMIT :limit;

-- counts --
-- Jobs in each state, from the tallies.
SELECT state, sum(jobs) FROM tallies GROUP BY state;

-- pairs --
-- Who has jobs of what, from the tallies: as many rows as there are kinds, however many jobs.
SELECT DISTINCT pipeline, owner FROM tallies;

-- rows --
-- The jobs of a page.
SELECT * FROM jobs WHERE sequence IN (SELECT value FROM json_each(:sequences))
ORDER BY sequence DESC;

-- sequences_in_time --
-- Between which sequence numbers every job created in a span of time lies.
SELECT
    (SELECT coalesce(min(first), 0) FROM hours WHERE hour >= substr(:after, 1, 13)),
    (SELECT coalesce(max(last), 0) + 1 FROM hours WHERE hour <= substr(:before, 1, 13));

-- The walks. Each yields, newest first, the jobs of some keys with a sequence in [:above, :below)
-- and a time of creation in [:after, :before). A key's own jobs stand in order in an index; the
-- recursion is the merge: its queue holds the next job of each key, ORDER BY takes the newest out,
-- and puts the following one of the same key in. So a page costs a few steps in an index for each
-- key and each row of it, wherever in the ledger they lie. The reader stops it when it has enough.

-- walk_all --
-- No key: along the table.
SELECT sequence, pipeline, owner FROM jobs
WHERE sequence < :below AND sequence >= :above AND created_at >= :after AND created_at < :before
ORDER BY sequence DESC;

-- walk_states --
-- A key for each state.
WITH RECURSIVE walk (sequence, state) AS (
    SELECT
        (SELECT j.sequence FROM jobs AS j
         WHERE j.state = key.value AND j.sequence < :below
         ORDER BY j.sequence DESC LIMIT 1),
        key.value
    FROM json_each(:states) AS key
    UNION ALL
    SELECT
        (SELECT j.sequence FROM jobs AS j
         WHERE j.state = walk.state AND j.sequence < walk.sequence
         ORDER BY j.sequence DESC LIMIT 1),
        walk.state
    FROM walk WHERE walk.sequence >= :above
    ORDER BY 1 DESC LIMIT -1
)
SELECT jobs.sequence, jobs.pipeline, jobs.owner
FROM walk CROSS JOIN jobs ON jobs.sequence = walk.sequence
WHERE walk.sequence >= :above AND jobs.created_at >= :after AND jobs.created_at < :before;

-- walk_pipeline --
-- A key for each state of one pipeline.
WITH RECURSIVE walk (sequence, state) AS (
    SELECT
        (SELECT j.sequence FROM jobs AS j
         WHERE j.pipeline = :pipeline AND j.state = key.value AND j.sequence < :below
         ORDER BY j.sequence DESC LIMIT 1),
        key.value
    FROM json_each(:states) AS key
    UNION ALL
    SELECT
        (SELECT j.sequence FROM jobs AS j
         WHERE j.pipeline = :pipeline AND j.state = walk.state AND j.sequence < walk.sequence
         ORDER BY j.sequence DESC LIMIT 1),
        walk.state
    FROM walk WHERE walk.sequence >= :above
    ORDER BY 1 DESC LIMIT -1
)
SELECT jobs.sequence, jobs.pipeline, jobs.owner
FROM walk CROSS JOIN jobs ON jobs.sequence = walk.sequence
WHERE walk.sequence >= :above AND jobs.created_at >= :after AND jobs.created_at < :before;

-- walk_owner --
-- A key for each state of one owner.
WITH RECURSIVE walk (sequence, state) AS (
    SELECT
        (SELECT j.sequence FROM jobs AS j
         WHERE j.owner = :owner AND j.state = key.value AND j.sequence < :below
         ORDER BY j.sequence DESC LIMIT 1),
        key.value
    FROM json_each(:states) AS key
    UNION ALL
    SELECT
        (SELECT j.sequence FROM jobs AS j
         WHERE j.owner = :owner AND j.state = walk.state AND j.sequence < walk.sequence
         ORDER BY j.sequence DESC LIMIT 1),
        walk.state
    FROM walk WHERE walk.sequence >= :above
    ORDER BY 1 DESC LIMIT -1
)
SELECT jobs.sequence, jobs.pipeline, jobs.owner
FROM walk CROSS JOIN jobs ON jobs.sequence = walk.sequence
WHERE walk.sequence >= :above AND jobs.created_at >= :after AND jobs.created_at < :before;

-- walk_pairs --
-- A key for each state of each (pipeline, owner); the tallies tell which of them have jobs.
WITH RECURSIVE walk (sequence, pipeline, owner, state) AS (
    SELECT
        (SELECT j.sequence FROM jobs AS j
         WHERE j.pipeline = key.pipeline AND j.owner = key.owner AND j.state = key.state
             AND j.sequence < :below
         ORDER BY j.sequence DESC LIMIT 1),
        key.pipeline, key.owner, key.state
    FROM json_each(:pairs) AS pair CROSS JOIN tallies AS key
        ON key.pipeline = json_extract(pair.value, '$[0]')
            AND key.owner = json_extract(pair.value, '$[1]')
    WHERE key.state IN (SELECT value FROM json_each(:states))
    UNION ALL
    SELECT
        (SELECT j.sequence FROM jobs AS j
         WHERE j.pipeline = walk.pipeline AND j.owner = walk.owner AND j.state = walk.state
             AND j.sequence < walk.sequence
         ORDER BY j.sequence DESC LIMIT 1),
        walk.pipeline, walk.owner, walk.state
    FROM walk WHERE walk.sequence >= :above
    ORDER BY 1 DESC LIMIT -1
)
SELECT jobs.sequence, jobs.pipeline, jobs.owner
FROM walk CROSS JOIN jobs ON jobs.sequence = walk.sequence
WHERE walk.sequence >= :above AND jobs.created_at >= :after AND jobs.created_at < :before;

-- is_rebuilt --
-- Whether everything the executor knew when this ledger was new has been read into it.
SELECT rebuilt_at IS NOT NULL FROM ledger;

-- note_rebuilt --
-- From now on only what changes is read.
UPDATE ledger SET rebuilt_at = :at WHERE rebuilt_at IS NULL;

-- shape --
-- The schema of a file, to be compared with the one it should have.
SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%' ORDER BY type, name;
