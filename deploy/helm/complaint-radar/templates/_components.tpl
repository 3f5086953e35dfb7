{{/*
What each process is: its command, which credentials it gets, and how many there may be.
  args        command line without --config
  secrets     kafka, clickhouse: whose files it gets
  single      one process at a time: Recreate, no disruption budget
  connects    reads the sources: gets the catalogue and the key of the pseudonyms
  partitions  of its topic: more replicas would have nothing to do
*/}}
{{- define "complaint-radar.components" -}}
connect: {args: [connect], secrets: [kafka], single: true, connects: true}
detect: {args: [worker, --stage, detect], secrets: [kafka], partitions: 12}
exporter: {args: [exporter], secrets: [kafka], single: true}
score: {args: [worker, --stage, score], secrets: [kafka], partitions: 12}
store: {args: [worker, --stage, store], secrets: [kafka, clickhouse], partitions: 12}
{{- end }}

{{/* The jobs that prepare Kafka and ClickHouse, in the order in which hooks run. */}}
{{- define "complaint-radar.jobs" -}}
topics: {args: [topics], secrets: [kafka], weight: "-10"}
migrate: {args: [migrate], secrets: [clickhouse], weight: "-5"}
{{- end }}
