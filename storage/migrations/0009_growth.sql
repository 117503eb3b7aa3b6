-- Clean-up, the safety net of the links and the counts of what waits find their
-- rows without a scan, however many others there are.
CREATE INDEX CONCURRENTLY IF NOT EXISTS session_live ON session (expires_at) WHERE ended_at IS NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS session_ended ON session (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS patient_unverified ON patient (updated_at) WHERE email_verified_at IS NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS link_pending ON link (suspended_at, id) WHERE ended_at IS NULL AND reason = 'merge-pending';
CREATE INDEX CONCURRENTLY IF NOT EXISTS link_deleted ON link (suspended_at, id) WHERE ended_at IS NULL AND reason = 'record-deleted';
CREATE INDEX CONCURRENTLY IF NOT EXISTS lab_identity_out ON lab_identity (id) WHERE status <> 'active' OR inactive OR hold <> '';
CREATE INDEX CONCURRENTLY IF NOT EXISTS outbox_open ON outbox (created_at) WHERE done_at IS NULL AND failed_at IS NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS audit_event_at ON audit_event (at);
