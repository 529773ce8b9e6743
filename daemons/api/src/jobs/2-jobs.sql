CREATE TABLE jobs (
    id TEXT NOT NULL PRIMARY KEY,
    revision BIGINT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    ended_ms BIGINT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX jobs_kind ON jobs (kind, id);
CREATE INDEX jobs_ended_ms ON jobs (ended_ms);
