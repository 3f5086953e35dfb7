-- What analysts query: no duplicates, no deleted rows, every column explained.

CREATE OR REPLACE VIEW v_mentions
(
    mention_id String COMMENT 'Identity of the mention',
    revision UInt32 COMMENT 'Edits so far',
    generation UInt32 COMMENT 'Generation of the scoring that made the row',
    source_id LowCardinality(String) COMMENT 'Immutable name of the source',
    native_id String COMMENT 'Id at the source; empty where it has none',
    channel LowCardinality(String) COMMENT 'review, social, call, chat, email or survey',
    event_time DateTime64(3, 'UTC') COMMENT 'When the customer said it, UTC',
    ingest_time DateTime64(3, 'UTC') COMMENT 'When the connector read it, UTC',
    product_id LowCardinality(String) COMMENT 'Product of the surest attribution; empty if unknown',
    product_batch_id LowCardinality(String) COMMENT 'Lot, firmware version, edition or model year; empty if unknown',
    attribution_confidence Float32 COMMENT 'How sure product and lot are, 0 to 1',
    version LowCardinality(String) COMMENT 'Firmware, app or edition as the source gives it',
    carrier LowCardinality(String) COMMENT 'Carrier; may be empty',
    region LowCardinality(String) COMMENT 'Region; may be empty',
    sentiment Float32 COMMENT '-1 to 1; within 0.1 of zero is neutral',
    sentiment_probability Float32 COMMENT 'Calibrated probability that the text is positive',
    speech_act LowCardinality(String) COMMENT 'complaint, doubt, suggestion, question, praise or other',
    emotion LowCardinality(String) COMMENT 'anger, disappointment, helplessness, sadness, fear, joy or neutral',
    intensity Float32 COMMENT 'Intensity of the emotion, 0 to 1',
    severity UInt8 COMMENT '0 no objection, 1 inconvenience, 2 loss, 3 danger with nobody hurt, 4 harm',
    objection_type Array(LowCardinality(String)) COMMENT 'Objection types; the objection_ columns are parallel, v_objections has one row each',
    objection_subtype Array(LowCardinality(String)) COMMENT 'Second level of the taxonomy',
    objection_span_start Array(UInt32) COMMENT 'First character of the evidence in text, from 0',
    objection_span_end Array(UInt32) COMMENT 'Character after the last one of the evidence',
    objection_polarity Array(LowCardinality(String)) COMMENT 'negative is an open objection',
    open_objection_types Array(LowCardinality(String)) COMMENT 'Distinct types objected to: negative ones of a complaint or doubt; what step counts count',
    author String COMMENT 'Keyed pseudonym; empty if unknown',
    near_duplicate_signature UInt64 COMMENT 'Equal for texts that differ only in names, numbers, emoticons; 0: no text',
    flags Array(LowCardinality(String)) COMMENT 'repost, incentivised, default_review, observed, backfill',
    rating Nullable(Float64) COMMENT 'Stars or score in the scale of the source',
    url String COMMENT 'Where it stands; may be empty',
    text String COMMENT 'The words of the customer, personal data masked',
    versions LowCardinality(String) COMMENT 'Model, lexicon, taxonomy and catalogue that made the row'
)
AS SELECT
    mention_id, revision, generation, source_id, native_id, channel, event_time, ingest_time, product_id,
    product_batch_id, attribution_confidence, version, carrier, region, sentiment, sentiment_probability, speech_act,
    emotion, intensity, severity, objection_type, objection_subtype, objection_span_start, objection_span_end,
    objection_polarity,
    if(speech_act IN ('complaint', 'doubt'),
       arrayDistinct(arrayFilter((kind, polarity) -> polarity = 'negative', objection_type, objection_polarity)),
       []) AS open_objection_types,
    author, near_duplicate_signature, flags, rating, url, text, versions
FROM mentions FINAL
WHERE deleted = 0
COMMENT 'Every mention once, as it stands: latest revision, newest scoring, withdrawn ones left out.';

CREATE OR REPLACE VIEW v_objections
(
    mention_id String COMMENT 'The mention that says so',
    event_time DateTime64(3, 'UTC') COMMENT 'When the customer said it, UTC',
    source_id LowCardinality(String) COMMENT 'Immutable name of the source',
    channel LowCardinality(String) COMMENT 'review, social, call, chat, email or survey',
    product_id LowCardinality(String) COMMENT 'Product; empty if unknown',
    product_batch_id LowCardinality(String) COMMENT 'Lot; empty if unknown',
    carrier LowCardinality(String) COMMENT 'Carrier; may be empty',
    region LowCardinality(String) COMMENT 'Region; may be empty',
    speech_act LowCardinality(String) COMMENT 'Of the mention; only complaint and doubt feed objection counts',
    severity UInt8 COMMENT 'Of the mention, 0 to 4',
    objection_type LowCardinality(String) COMMENT 'Objection type',
    objection_subtype LowCardinality(String) COMMENT 'Second level of the taxonomy',
    polarity LowCardinality(String) COMMENT 'negative is an open objection; neutral and positive are none',
    quote String COMMENT 'The words that justify it, masked'
)
AS SELECT
    m.mention_id AS mention_id, m.event_time AS event_time, m.source_id AS source_id, m.channel AS channel,
    m.product_id AS product_id, m.product_batch_id AS product_batch_id, m.carrier AS carrier, m.region AS region,
    m.speech_act AS speech_act, m.severity AS severity,
    one_type AS objection_type, one_subtype AS objection_subtype, one_polarity AS polarity,
    substringUTF8(m.text, one_start + 1, one_end - one_start) AS quote
FROM v_mentions AS m
ARRAY JOIN
    m.objection_type AS one_type,
    m.objection_subtype AS one_subtype,
    m.objection_polarity AS one_polarity,
    m.objection_span_start AS one_start,
    m.objection_span_end AS one_end
COMMENT 'One row per objection (or praise, or neutral naming) of every mention, with the words that justify it.';

CREATE OR REPLACE VIEW v_signal_history
(
    signal_id String COMMENT 'Identity of the signal',
    revision UInt32 COMMENT '0 when opened; each update or the closing adds one',
    event LowCardinality(String) COMMENT 'opened, updated or closed',
    kind LowCardinality(String) COMMENT 'spike, ramp, severe or incident',
    tier LowCardinality(String) COMMENT 'page, ticket or info',
    severity UInt8 COMMENT '0 to 4',
    historic UInt8 COMMENT '1: history; pages nobody',
    subject_kind LowCardinality(String) COMMENT 'product, carrier, region or channel',
    subject_id String COMMENT 'Which one',
    product_batch_id String COMMENT 'Lot; may be empty',
    objection_type LowCardinality(String) COMMENT 'Objection type',
    opened_step DateTime64(3, 'UTC') COMMENT 'Start of the base step that opened it',
    step_start DateTime64(3, 'UTC') COMMENT 'Start of the base step this revision speaks of',
    observed UInt64 COMMENT 'Distinct voices in the window',
    expected Float64 COMMENT 'Voices expected in the window',
    interval_low Float64 COMMENT 'Lower end of the 95 % prediction interval',
    interval_high Float64 COMMENT 'Upper end of the 95 % prediction interval',
    exposure Float64 COMMENT 'Mean exposure over the window',
    exposure_kind LowCardinality(String) COMMENT 'units or mentions',
    rate_ratio Float64 COMMENT 'observed over expected',
    window UInt32 COMMENT 'Base steps in the window',
    p_value Nullable(Float64) COMMENT 'Null on the severity path',
    voices UInt64 COMMENT 'Distinct voices since it opened',
    concentration_dimension LowCardinality(String) COMMENT 'Dimension that explains the excess best',
    concentration_value String COMMENT 'Value of that dimension',
    driver_dimension Array(LowCardinality(String)) COMMENT 'Dimensions compared; the driver_ columns are parallel',
    driver_value Array(String) COMMENT 'Value that holds most of the excess in its dimension',
    driver_share_of_excess Array(Float64) COMMENT 'Share of the excess',
    driver_share_of_exposure Array(Float64) COMMENT 'Share of the exposure',
    evidence_mention_id Array(String) COMMENT 'Mentions it rests on; the evidence_ columns are parallel',
    evidence_event_time Array(DateTime64(3, 'UTC')) COMMENT 'When they were said',
    evidence_quote Array(String) COMMENT 'Masked, shortened quotes',
    opening_state String COMMENT 'JSON: state of the series when it opened',
    versions LowCardinality(String) COMMENT 'Detection, policy and catalogue that made it'
)
AS SELECT * FROM signals FINAL
COMMENT 'Every revision of every signal, once.';

CREATE OR REPLACE VIEW v_signals
(
    signal_id String COMMENT 'Identity of the signal',
    revision UInt32 COMMENT 'Latest revision',
    event LowCardinality(String) COMMENT 'What happened last: opened, updated or closed',
    kind LowCardinality(String) COMMENT 'spike, ramp, severe or incident',
    tier LowCardinality(String) COMMENT 'page, ticket or info',
    severity UInt8 COMMENT '0 to 4',
    historic UInt8 COMMENT '1: history; pages nobody',
    subject_kind LowCardinality(String) COMMENT 'product, carrier, region or channel',
    subject_id String COMMENT 'Which one',
    product_batch_id String COMMENT 'Lot; may be empty',
    objection_type LowCardinality(String) COMMENT 'Objection type',
    opened_step DateTime64(3, 'UTC') COMMENT 'Start of the base step that opened it',
    step_start DateTime64(3, 'UTC') COMMENT 'Start of the base step the latest revision speaks of',
    observed UInt64 COMMENT 'Distinct voices in the window',
    expected Float64 COMMENT 'Voices expected in the window',
    interval_low Float64 COMMENT 'Lower end of the 95 % prediction interval',
    interval_high Float64 COMMENT 'Upper end of the 95 % prediction interval',
    exposure Float64 COMMENT 'Mean exposure over the window',
    exposure_kind LowCardinality(String) COMMENT 'units or mentions',
    rate_ratio Float64 COMMENT 'observed over expected',
    window UInt32 COMMENT 'Base steps in the window',
    p_value Nullable(Float64) COMMENT 'Null on the severity path',
    voices UInt64 COMMENT 'Distinct voices since it opened',
    concentration_dimension LowCardinality(String) COMMENT 'Dimension that explains the excess best',
    concentration_value String COMMENT 'Value of that dimension',
    driver_dimension Array(LowCardinality(String)) COMMENT 'Dimensions compared; the driver_ columns are parallel',
    driver_value Array(String) COMMENT 'Value that holds most of the excess in its dimension',
    driver_share_of_excess Array(Float64) COMMENT 'Share of the excess',
    driver_share_of_exposure Array(Float64) COMMENT 'Share of the exposure',
    evidence_mention_id Array(String) COMMENT 'Mentions it rests on; the evidence_ columns are parallel',
    evidence_event_time Array(DateTime64(3, 'UTC')) COMMENT 'When they were said',
    evidence_quote Array(String) COMMENT 'Masked, shortened quotes',
    opening_state String COMMENT 'JSON: state of the series when it opened',
    versions LowCardinality(String) COMMENT 'Detection, policy and catalogue that made it'
)
AS SELECT * FROM signals ORDER BY revision DESC LIMIT 1 BY signal_id
COMMENT 'Every signal once, at its latest revision.';

CREATE OR REPLACE VIEW v_step_counts
(
    subject_kind LowCardinality(String) COMMENT 'product, carrier, region or channel',
    subject_id LowCardinality(String) COMMENT 'Which one',
    product_batch_id LowCardinality(String) COMMENT 'Lot; empty: unknown, or the subject is no product',
    objection_type LowCardinality(String) COMMENT 'Objection type, or any',
    step_start DateTime64(3, 'UTC') COMMENT 'Start of the base step, UTC',
    step LowCardinality(String) COMMENT 'Length of the base step: 1h or 1d',
    revision UInt32 COMMENT 'Latest revision; more than 0: was corrected',
    count UInt64 COMMENT 'Distinct voices that object',
    mentions UInt64 COMMENT 'All mentions of the subject and lot in the step',
    exposure Float64 COMMENT 'Units in the field, or mentions',
    exposure_kind LowCardinality(String) COMMENT 'units or mentions',
    known_share Float32 COMMENT 'Share of the mentions of the product in the step whose lot is known',
    status LowCardinality(String) COMMENT 'provisional or final',
    versions LowCardinality(String) COMMENT 'Detection, policy and catalogue that made it'
)
AS SELECT
    subject_kind, subject_id, product_batch_id, objection_type, step_start, step,
    latest.1 AS revision, latest.2 AS count, latest.3 AS mentions, latest.4 AS exposure, latest.5 AS exposure_kind,
    latest.6 AS known_share, latest.7 AS status, latest.8 AS versions
FROM
(
    SELECT
        subject_kind, subject_id, product_batch_id, objection_type, step_start, step,
        argMax(
            (c.revision, c.count, c.mentions, c.exposure, c.exposure_kind, c.known_share, c.status, c.versions),
            c.revision
        ) AS latest
    FROM step_counts AS c
    GROUP BY subject_kind, subject_id, product_batch_id, objection_type, step_start, step
) AS cells
COMMENT 'Every cell once, at its latest revision: the counts that alerts rest on.';

CREATE OR REPLACE VIEW v_daily_rates
(
    day Date COMMENT 'Calendar day in Asia/Shanghai',
    product_id LowCardinality(String) COMMENT 'Product',
    product_batch_id LowCardinality(String) COMMENT 'Lot; empty: unknown',
    objection_type LowCardinality(String) COMMENT 'Objection type, or any; types nobody objected to are listed with 0',
    step LowCardinality(String) COMMENT 'Base step it was counted in: 1h or 1d',
    objecting_voices UInt64 COMMENT 'Voices that object, distinct within each base step, summed over the day',
    mentions UInt64 COMMENT 'All mentions of the lot on the day',
    exposure Float64 COMMENT 'units: mean number of units in the field on the day; mentions: mentions of the day',
    exposure_kind LowCardinality(String) COMMENT 'units or mentions; the kind in force at the end of the day',
    rate Nullable(Float64) COMMENT 'Objecting voices per 10,000 units in the field, or per 100 mentions; null without exposure',
    rate_unit LowCardinality(String) COMMENT 'per 10,000 units or per 100 mentions',
    known_share Nullable(Float64) COMMENT 'Share of the mentions of the product whose lot is known, mean over the steps',
    status LowCardinality(String) COMMENT 'final when every step of the day is; else provisional'
)
AS SELECT
    day, product_id, product_batch_id, objection_type, step,
    voices_by_type[objection_type] AS objecting_voices,
    day_mentions AS mentions,
    day_exposure AS exposure,
    day_kind AS exposure_kind,
    if(day_exposure > 0, objecting_voices * if(day_kind = 'units', 10000, 100) / day_exposure, NULL) AS rate,
    if(day_kind = 'units', 'per 10,000 units', 'per 100 mentions') AS rate_unit,
    day_known_share AS known_share,
    if(open_steps = 0, 'final', 'provisional') AS status
FROM
(
    SELECT
        toDate(s.step_start, 'Asia/Shanghai') AS day,
        s.subject_id AS product_id,
        s.product_batch_id AS product_batch_id,
        s.step AS step,
        sumMap(map(toString(s.objection_type), s.count)) AS voices_by_type,
        sumIf(s.mentions, s.objection_type = 'any') AS day_mentions,
        argMax(s.exposure_kind, s.step_start) AS day_kind,
        if(day_kind = 'units',
           avgIf(s.exposure, s.objection_type = 'any' AND s.exposure_kind = 'units'),
           sumIf(s.exposure, s.objection_type = 'any' AND s.exposure_kind = 'mentions')) AS day_exposure,
        avgOrNullIf(s.known_share, s.objection_type = 'any') AS day_known_share,
        countIf(s.status != 'final') AS open_steps
    FROM v_step_counts AS s
    WHERE s.subject_kind = 'product'
    GROUP BY day, product_id, product_batch_id, step
) AS days
ARRAY JOIN
    ['any', 'product_quality', 'service_attitude', 'service_efficiency', 'price', 'delivery', 'after_sales', 'expectation_gap'] AS objection_type
COMMENT 'Objections per day, product, lot and type against their exposure, from the counts that alerts rest on.';

CREATE OR REPLACE VIEW v_dead_letters
(
    dead_letter_id String COMMENT 'Identity of the dead letter',
    source_id LowCardinality(String) COMMENT 'Source it came from; empty if unknown',
    stage LowCardinality(String) COMMENT 'Stage that refused it',
    reason LowCardinality(String) COMMENT 'Why, as one word of a closed set',
    detail String COMMENT 'Why, in words; masked',
    locator String COMMENT 'Where it stands',
    payload String COMMENT 'The record, masked, cut at 16 KB',
    payload_hash String COMMENT 'Hash of the record as it was read',
    time DateTime64(3, 'UTC') COMMENT 'When it was refused last, UTC',
    replayed_at Nullable(DateTime64(3, 'UTC')) COMMENT 'When it was sent back to its start last; null: never',
    state LowCardinality(String) COMMENT 'waiting, or replayed since it was refused last'
)
AS SELECT
    d.dead_letter_id AS dead_letter_id, d.source_id AS source_id, d.stage AS stage, d.reason AS reason,
    d.detail AS detail, d.locator AS locator, d.payload AS payload, d.payload_hash AS payload_hash, d.time AS time,
    if(r.replays = 0, NULL, r.last_replay) AS replayed_at,
    if(r.replays > 0 AND r.last_replay >= d.time, 'replayed', 'waiting') AS state
FROM (SELECT * FROM dead_letters FINAL) AS d
LEFT JOIN
(
    SELECT dead_letter_id, max(replayed_at) AS last_replay, count() AS replays
    FROM dead_letter_replays
    GROUP BY dead_letter_id
) AS r ON r.dead_letter_id = d.dead_letter_id
COMMENT 'Refused records, each once, and whether they were replayed.';

CREATE OR REPLACE VIEW v_gaps
(
    source_id LowCardinality(String) COMMENT 'Source that told, or may have told, nothing',
    start DateTime64(3, 'UTC') COMMENT 'Event time from which on, UTC',
    end Nullable(DateTime64(3, 'UTC')) COMMENT 'Event time until which, UTC; null while it lasts',
    reason String COMMENT 'Why, in words'
)
AS SELECT source_id, start, end, reason FROM gaps FINAL
COMMENT 'Times without data, each once.';
