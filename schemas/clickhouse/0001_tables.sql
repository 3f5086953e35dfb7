-- Tables of Complaint Radar. ClickHouse 23.8 or newer, server or embedded; forward only: a change is a new file.
-- Every table names its idempotency key: writing the same row again, in whatever block, adds nothing that a view shows.
-- Times are UTC. An insert carries an insert_deduplication_token; the last 10,000 tokens of each table are remembered.
-- A returned insert is on disk, data and directory entry (the two fsync settings).

CREATE TABLE IF NOT EXISTS mentions
(
    mention_id String COMMENT 'Identity of the mention; hash of source_id and the id at the source' CODEC(ZSTD(1)),
    revision UInt32 COMMENT '0 at first; each edit or deletion at the source adds one' CODEC(ZSTD(1)),
    generation UInt32 COMMENT 'Generation of the scoring that made the row; scoring anew with newer models raises it' CODEC(ZSTD(1)),
    row_version UInt64 MATERIALIZED toUInt64(revision) * 4294967296 + generation COMMENT 'revision * 2^32 + generation; the highest one is the mention as it stands',
    deleted UInt8 COMMENT '1: withdrawn at the source; text is empty and views leave the row out',
    source_id LowCardinality(String) COMMENT 'Immutable name of the source',
    native_id String COMMENT 'Id at the source; empty where it has none' CODEC(ZSTD(1)),
    channel LowCardinality(String) COMMENT 'review, social, call, chat, email or survey',
    event_time DateTime64(3, 'UTC') COMMENT 'When the customer said it' CODEC(T64, ZSTD(1)),
    ingest_time DateTime64(3, 'UTC') COMMENT 'When the connector read it' CODEC(T64, ZSTD(1)),
    product_id LowCardinality(String) COMMENT 'Product of the surest attribution; empty if unknown',
    product_batch_id LowCardinality(String) COMMENT 'Lot, firmware version, edition or model year; empty if unknown',
    attribution_confidence Float32 COMMENT 'How sure product and lot are, 0 to 1' CODEC(ZSTD(1)),
    version LowCardinality(String) COMMENT 'Firmware, app or edition as the source gives it; may be empty',
    carrier LowCardinality(String) COMMENT 'Carrier; may be empty',
    region LowCardinality(String) COMMENT 'Region; may be empty',
    sentiment Float32 COMMENT '-1 to 1; within 0.1 of zero is neutral' CODEC(ZSTD(1)),
    sentiment_probability Float32 COMMENT 'Calibrated probability that the text is positive' CODEC(ZSTD(1)),
    speech_act LowCardinality(String) COMMENT 'complaint, doubt, suggestion, question, praise or other; only the first two feed objection counts',
    emotion LowCardinality(String) COMMENT 'anger, disappointment, helplessness, sadness, fear, joy or neutral',
    intensity Float32 COMMENT 'Intensity of the emotion, 0 to 1' CODEC(ZSTD(1)),
    severity UInt8 COMMENT '0 no objection, 1 inconvenience, 2 loss, 3 danger with nobody hurt, 4 harm',
    objection_type Array(LowCardinality(String)) COMMENT 'Objection types; the five objection_ columns are parallel',
    objection_subtype Array(LowCardinality(String)) COMMENT 'Second level of the taxonomy',
    objection_span_start Array(UInt32) COMMENT 'First character of the evidence in text, from 0' CODEC(ZSTD(1)),
    objection_span_end Array(UInt32) COMMENT 'Character after the last one of the evidence' CODEC(ZSTD(1)),
    objection_polarity Array(LowCardinality(String)) COMMENT 'negative is an open objection; neutral and positive are none',
    author String COMMENT 'Keyed pseudonym; empty if unknown' CODEC(ZSTD(1)),
    near_duplicate_signature UInt64 COMMENT 'Equal for texts that differ only in names, numbers, emoticons; 0: no text' CODEC(ZSTD(1)),
    flags Array(LowCardinality(String)) COMMENT 'repost, incentivised, default_review, observed, backfill',
    rating Nullable(Float64) COMMENT 'Stars or score in the scale of the source' CODEC(ZSTD(1)),
    url String COMMENT 'Where it stands; may be empty' CODEC(ZSTD(1)),
    text String COMMENT 'The words of the customer, personal data masked' CODEC(ZSTD(3)),
    versions LowCardinality(String) COMMENT 'Model, lexicon, taxonomy and catalogue that made the row',
    CONSTRAINT deleted_is_a_flag CHECK deleted <= 1,
    CONSTRAINT severity_in_range CHECK severity <= 4,
    CONSTRAINT sentiment_in_range CHECK sentiment >= -1 AND sentiment <= 1,
    CONSTRAINT objections_are_parallel CHECK length(objection_subtype) = length(objection_type) AND length(objection_span_start) = length(objection_type) AND length(objection_span_end) = length(objection_type) AND length(objection_polarity) = length(objection_type)
)
ENGINE = ReplacingMergeTree(row_version, deleted)
ORDER BY (source_id, mention_id)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'One row per mention: its primary subject, that is the product of the surest attribution. Key: source_id, mention_id. Query v_mentions, which shows the latest revision only.';

CREATE TABLE IF NOT EXISTS signals
(
    signal_id String COMMENT 'Identity: hash of what it is about and the step that opened it' CODEC(ZSTD(1)),
    revision UInt32 COMMENT '0 when opened; each update or the closing adds one',
    event LowCardinality(String) COMMENT 'opened, updated or closed',
    kind LowCardinality(String) COMMENT 'spike, ramp, severe or incident',
    tier LowCardinality(String) COMMENT 'page, ticket or info',
    severity UInt8 COMMENT '0 to 4, see mentions.severity',
    historic UInt8 COMMENT '1: what opened it was ingested later than the alerting horizon; pages nobody',
    subject_kind LowCardinality(String) COMMENT 'product, carrier, region or channel',
    subject_id String COMMENT 'Which product, carrier, region or channel' CODEC(ZSTD(1)),
    product_batch_id String COMMENT 'Lot; empty where the subject is no product or the lot is unknown' CODEC(ZSTD(1)),
    objection_type LowCardinality(String) COMMENT 'Objection type',
    opened_step DateTime64(3, 'UTC') COMMENT 'Start of the base step that opened it; severe: of the event day' CODEC(Delta(8), ZSTD(1)),
    step_start DateTime64(3, 'UTC') COMMENT 'Start of the base step this revision speaks of' CODEC(Delta(8), ZSTD(1)),
    observed UInt64 COMMENT 'Distinct voices in the window',
    expected Float64 COMMENT 'Voices expected in the window by history and exposure',
    interval_low Float64 COMMENT 'Lower end of the 95 % prediction interval of the count, were nothing wrong',
    interval_high Float64 COMMENT 'Upper end of the 95 % prediction interval of the count, were nothing wrong',
    exposure Float64 COMMENT 'Mean exposure over the window: units in the field or mentions, see exposure_kind',
    exposure_kind LowCardinality(String) COMMENT 'units or mentions',
    rate_ratio Float64 COMMENT 'observed over expected',
    window UInt32 COMMENT 'Base steps in the window',
    p_value Nullable(Float64) COMMENT 'Of the scan, corrected for its windows; null on the severity path',
    voices UInt64 COMMENT 'Distinct voices since it opened',
    concentration_dimension LowCardinality(String) COMMENT 'Dimension that explains the excess best: batch, carrier, region, channel, version or none',
    concentration_value String COMMENT 'Value of that dimension',
    driver_dimension Array(LowCardinality(String)) COMMENT 'Dimensions compared; the four driver_ columns are parallel',
    driver_value Array(String) COMMENT 'Value that holds most of the excess in its dimension',
    driver_share_of_excess Array(Float64) COMMENT 'Share of the excess that the value holds',
    driver_share_of_exposure Array(Float64) COMMENT 'Share of the exposure that the value holds',
    evidence_mention_id Array(String) COMMENT 'Up to five mentions it rests on; the three evidence_ columns are parallel',
    evidence_event_time Array(DateTime64(3, 'UTC')) COMMENT 'When they were said',
    evidence_quote Array(String) COMMENT 'Masked, shortened quotes; empty for subjects that are no product' CODEC(ZSTD(1)),
    opening_state String COMMENT 'JSON: state of the series when it opened, enough to replay it' CODEC(ZSTD(3)),
    versions LowCardinality(String) COMMENT 'Detection, policy and catalogue that made it'
)
ENGINE = ReplacingMergeTree
ORDER BY (signal_id, revision)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Every revision of every signal. Key: signal_id, revision. v_signals shows the latest revision, v_signal_history all of them.';

CREATE TABLE IF NOT EXISTS step_counts
(
    subject_kind LowCardinality(String) COMMENT 'product, carrier, region or channel',
    subject_id LowCardinality(String) COMMENT 'Which product, carrier, region or channel',
    product_batch_id LowCardinality(String) COMMENT 'Lot; empty: unknown, or the subject is no product',
    objection_type LowCardinality(String) COMMENT 'Objection type, or any; a type absent from a step is zero',
    step_start DateTime64(3, 'UTC') COMMENT 'Start of the base step' CODEC(DoubleDelta, ZSTD(1)),
    step LowCardinality(String) COMMENT 'Length of the base step: 1h, or 1d which is a local calendar day',
    revision UInt32 COMMENT '0 at first; each open correction adds one',
    count UInt64 COMMENT 'Distinct voices that object' CODEC(T64, ZSTD(1)),
    mentions UInt64 COMMENT 'All mentions of the subject and lot in the step' CODEC(T64, ZSTD(1)),
    exposure Float64 COMMENT 'Units in the field, or mentions, see exposure_kind' CODEC(ZSTD(1)),
    exposure_kind LowCardinality(String) COMMENT 'units or mentions',
    known_share Float32 COMMENT 'Share of the mentions of the product in the step whose lot is known' CODEC(ZSTD(1)),
    status LowCardinality(String) COMMENT 'provisional, or final: takes no more corrections',
    versions LowCardinality(String) COMMENT 'Detection, policy and catalogue that made it'
)
ENGINE = ReplacingMergeTree
ORDER BY (subject_kind, subject_id, product_batch_id, objection_type, step, step_start, revision)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Counts that detection decided by, every revision kept. Key: all columns up to revision. v_step_counts shows the latest revision of each cell.';

CREATE TABLE IF NOT EXISTS dead_letters
(
    dead_letter_id String COMMENT 'Identity: hash of the locator and of the payload hash' CODEC(ZSTD(1)),
    source_id LowCardinality(String) COMMENT 'Source it came from; empty if unknown',
    stage LowCardinality(String) COMMENT 'Stage that refused it: connector, score, detect or store',
    reason LowCardinality(String) COMMENT 'Why, as one word of a closed set',
    detail String COMMENT 'Why, in words; masked' CODEC(ZSTD(1)),
    locator String COMMENT 'Where it stands: file and record number, or topic-partition-offset' CODEC(ZSTD(1)),
    payload String COMMENT 'The record, masked, cut at 16 KB' CODEC(ZSTD(3)),
    payload_hash String COMMENT 'Hash of the record as it was read' CODEC(ZSTD(1)),
    time DateTime64(3, 'UTC') COMMENT 'When it was refused' CODEC(Delta(8), ZSTD(1))
)
ENGINE = ReplacingMergeTree(time)
ORDER BY dead_letter_id
TTL toDateTime(time) + INTERVAL 90 DAY DELETE
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Records that were refused. Key: dead_letter_id. Kept 90 days; change it with ALTER TABLE dead_letters MODIFY TTL.';

CREATE TABLE IF NOT EXISTS dead_letter_replays
(
    dead_letter_id String COMMENT 'The dead letter that was sent back to its start' CODEC(ZSTD(1)),
    replayed_at DateTime64(3, 'UTC') COMMENT 'When' CODEC(Delta(8), ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (dead_letter_id, replayed_at)
TTL toDateTime(replayed_at) + INTERVAL 90 DAY DELETE
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Replays of dead letters. Key: dead_letter_id, replayed_at. Kept as long as dead letters.';

CREATE TABLE IF NOT EXISTS gaps
(
    source_id LowCardinality(String) COMMENT 'Source that told, or may have told, nothing',
    start DateTime64(3, 'UTC') COMMENT 'Event time from which on' CODEC(Delta(8), ZSTD(1)),
    end Nullable(DateTime64(3, 'UTC')) COMMENT 'Event time until which; null while it lasts',
    row_version UInt64 MATERIALIZED ifNull(toUInt64(greatest(toUnixTimestamp64Milli(end), 0)), 0) COMMENT 'A closed gap is newer than an open one',
    reason String COMMENT 'Why, in words' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(row_version)
ORDER BY (source_id, start)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Times without data. Key: source_id, start.';
