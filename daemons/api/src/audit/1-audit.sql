CREATE TABLE audit (
    id TEXT NOT NULL PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    principal TEXT NOT NULL,
    name TEXT NOT NULL,
    address TEXT NOT NULL,
    method TEXT NOT NULL,
    route TEXT NOT NULL,
    resource TEXT NOT NULL,
    request_id TEXT NOT NULL,
    replica TEXT NOT NULL,
    outcome TEXT NOT NULL,
    status BIGINT NOT NULL,
    etag_before TEXT NOT NULL,
    etag_after TEXT NOT NULL
);
CREATE INDEX audit_principal ON audit (principal, id);
CREATE INDEX audit_resource ON audit (resource, id);
