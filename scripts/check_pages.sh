#!/usr/bin/env sh
# Lint or type-check the explorer's pages with the tools of package-lock.json: check_pages.sh lint|types.
# The pages need neither node nor a build step. Machines without node skip the checks, and say so.
set -eu
cd "$(dirname "$0")/.."

skip() {
  echo "SKIPPED: the explorer's JavaScript was not checked, because $1" >&2
  exit 0
}

command -v node >/dev/null || skip "node is not installed"
command -v npm >/dev/null || skip "npm is not installed"
node -e 'process.exit(process.versions.node.split(".")[0] >= 18 ? 0 : 1)' || skip "node is older than 18.18"

if [ ! -e node_modules/.installed ] || [ package-lock.json -nt node_modules/.installed ]; then
  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error || skip "npm could not install its tools"
  touch node_modules/.installed
fi
exec npm run --silent "$1"
