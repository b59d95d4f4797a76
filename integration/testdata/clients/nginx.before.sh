. ./engine.sh
sed -i 's/init = 0/init = 1/' engine.cnf
trap 'cat error.log >&2; [ ! -e nginx.pid ] || kill $(cat nginx.pid)' EXIT
