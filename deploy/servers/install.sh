#!/usr/bin/env bash
# Installs the servers that servers.py starts: Kafka, ClickHouse, Prometheus, Alertmanager, without containers.
# May be run again: it installs only what is missing. Exit code 1: something is missing still, and it has said what.
#
# SERVERS_HOME: where Kafka's jars are kept; ~/.cache/complaint-radar/servers by default.
set -euo pipefail

pom="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/kafka-pom.xml"
kafka_version="$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$pom")"
kafka_home="${SERVERS_HOME:-$HOME/.cache/complaint-radar/servers}/kafka-$kafka_version"
policy=/usr/sbin/policy-rc.d
PATH="$PATH:/usr/sbin" # where Debian puts clickhouse-server, and not on the path of ordinary users

retry() {
  local try
  for try in 1 2 3; do
    "$@" && return
    echo "attempt $try of 3 failed: $*" >&2
    sleep $((try * 3))
  done
  return 1
}

# Whatever program comes first stands for its package.
wanted() {
  echo "java default-jre-headless"
  [ -d "$kafka_home/libs" ] || echo "mvn maven"
  echo "clickhouse-server clickhouse-server"
  echo "prometheus prometheus"
  echo "prometheus-alertmanager prometheus-alertmanager"
  echo "openssl openssl"
}

missing_packages() {
  local program package
  wanted | while read -r program package; do
    command -v "$program" >/dev/null || echo "$package"
  done
}

install_packages() {
  local package
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed: $*"
    echo "they are installed by apt-get on Debian, as root; elsewhere please install them yourself"
    return
  fi
  # Debian starts a service as it installs it, on the very ports we use, unless this file forbids it.
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  export DEBIAN_FRONTEND=noninteractive
  retry apt-get update -qq || true
  # One by one: a release that lacks one of them has the others.
  for package in "$@"; do
    echo "installing $package"
    retry apt-get install -y -qq --no-install-recommends "$package" >/dev/null || continue
    # Nor is it to start with the machine.
    if [ -e "/etc/init.d/$package" ]; then update-rc.d "$package" disable; fi
  done
}

install_kafka() {
  local fetched
  [ ! -d "$kafka_home/libs" ] || return 0
  if ! command -v mvn >/dev/null; then
    echo "not installed: Kafka $kafka_version, for want of Maven (mvn)"
    return
  fi
  echo "fetching Kafka $kafka_version"
  mkdir -p "$kafka_home"
  # Fetched beside and renamed: the folder is either not there or whole.
  fetched="$(mktemp -d "$kafka_home/fetching.XXXXXX")"
  if retry mvn -q -B -f "$pom" dependency:copy-dependencies -DoutputDirectory="$fetched"; then
    [ -d "$kafka_home/libs" ] || mv "$fetched" "$kafka_home/libs"
  fi
  rm -rf "$fetched"
}

check() {
  local lacking
  lacking="$(missing_packages | paste -sd ' ' -)"
  [ -d "$kafka_home/libs" ] || lacking="$lacking kafka-$kafka_version"
  if [ -n "$lacking" ]; then
    echo "still missing: ${lacking# }"
    return 1
  fi
  echo "all servers are installed"
}

mapfile -t packages < <(missing_packages)
[ ${#packages[@]} = 0 ] || install_packages "${packages[@]}"
install_kafka
check
