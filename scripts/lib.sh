# shellcheck shell=bash
# What scripts/test, scripts/demo and scripts/install share. Sourced, never run; expects `set -euo pipefail`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

need_root() {
  [ "$(id -u)" -eq 0 ] || fail 'must be run as root (network namespaces and iptables)'
}

# Node 20.20 or a later Node 20+, as package.json says.
need_node() {
  command -v node >/dev/null || fail 'Node.js 20.20 or later is needed: https://nodejs.org/'
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 20) ? 0 : 1)' ||
    fail "Node.js 20.20 or later is needed, found $(node --version)"
}

# `npm ci`, unless node_modules was made from this very lock file.
install_modules() {
  local stamp="$root/node_modules/.mesh-node-lock" wanted
  wanted=$(cd "$root" && cat package.json package-lock.json | sha256sum)
  if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return 0; fi
  (cd "$root" && npm ci --include=dev --include=optional --no-audit --no-fund --loglevel=error)
  printf '%s\n' "$wanted" >"$stamp"
}
