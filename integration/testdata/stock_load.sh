# A shell loop over the mount under load: it creates, changes, reads and destroys
# objects and signs, and writes down what it did and when, as stock_load.c does.
# But for rmdir and base64 it needs only what bash has built in.
#
# usage: bash stock_load.sh PIN DIR WORKER, with $T and $O
#
# Each runs in a POSIX session of its own, and so has a login of its own. When
# something fails because the daemon is gone it logs in again, until it can.
pin=$1 dir=$2 w=$3
name=sh$w seq=0 t0=
exec 7>"$dir/$name.log" 8>"$dir/$name.err"
RANDOM=$((w + 1))

now() { t=${EPOCHREALTIME/./}; }
next() { seq=$((seq + 1)); }

login() {
	until { echo "$pin" >"$T/login"; } 2>"$dir/$name.e"; do sleep 0.05; done
}

# done_ OPERATION KEY VALUE RESULT [OLD] writes the operation down that began at $t0,
# whose complaints are in the file $name.e, and succeeds if it did.
done_() {
	now
	local e= who= called="C $t0 $1 $2 $3 $5"
	read -r e <"$dir/$name.e"
	if [ -z "$e" ]; then
		printf '%s\nR %s ok %s\n' "$called" "$t" "$4" >&7
		return 0
	fi
	case $e in
	*'No such file'*)
		# Unless this is so for want of a login.
		{ read -r who <"$T/login"; } 2>/dev/null
		if [ "$who" = user ]; then
			printf '%s\nR %s absent\n' "$called" "$t" >&7
			return 1
		fi
		;;
	esac
	{ read -r who <"$T/login"; } 2>/dev/null
	[ "$who" = user ] || e="no login: $e"
	printf '%s\nR %s err %s\n' "$called" "$t" "$e" >&7
	[ "$who" = user ] || login
	return 2
}
begin() { now; t0=$t; }

# A data object is there, and empty, from its open on.
create_data() { # KEY VALUE
	begin
	{ exec 5>"$T/data/$1"; } 2>"$dir/$name.e"
	done_ create "$1" || return
	[ -n "$2" ] || { exec 5>&-; return; }
	begin
	{ echo "$2" >&5; } 2>"$dir/$name.e"
	exec 5>&-
	done_ write "$1" "$2"
}
put() { # KEY FILE VALUE
	begin
	{ echo "$3" >"$2"; } 2>"$dir/$name.e"
	done_ write "$1" "$3"
}
get() { # KEY FILE
	local v=
	begin
	{ read -r v <"$2"; } 2>"$dir/$name.e"
	done_ read "$1" '' "$v"
}
create_key() { # KEY LABEL ID VALUE
	begin
	{ echo "aes:128 label=$2 id=$3 private=false" >"$T/generate"; } 2>"$dir/$name.e"
	done_ create "$1" "$4"
}
destroy() { # KEY FOLDER [OLD]
	begin
	rmdir "$O/$2" 2>"$dir/$name.e"
	done_ destroy "$1" '' '' "$3"
}
sign() {
	local sig= m=
	next
	m=$name.$seq
	begin
	{ printf %s "$m" >"$O/load.key/sign"; } 2>"$dir/$name.e"
	[ -s "$dir/$name.e" ] || sig=$(base64 -w0 "$O/load.key/sign" 2>"$dir/$name.e")
	done_ sign load "$m" "$sig"
}

own=()
own_object() {
	local i=$((RANDOM % 24)) what=$((RANDOM % 100))
	local key=${own[i]}
	next
	if [ -z "$key" ]; then
		key=$name-$seq
		create_data "$key" "$name.$seq" && own[i]=$key
	elif [ $what -lt 45 ]; then
		put "$key" "$T/data/$key" "$name.$seq"
	elif [ $what -lt 60 ]; then
		get "$key" "$O/$key.dat/value"
	else
		destroy "$key" "$key.dat"
		own[i]=
	fi
}

share() { # PLACE KEY
	mine=$2
	echo "$2" >"$dir/shared.$1"
}
id() { printf -v id '0x%02x%08x' $((w + 16)) "$seq"; }

# share_new makes the object of the place that this shell keeps.
share_new() {
	next
	id
	local key=$name-s$w-$seq
	case $w in
	0 | 1) create_data "$key" && share "$w" "$key" ;;
	2) create_key "$key" "$key" "$id" "$id" && share 2 "$key" ;;
	3)
		# Its key is its CKA_ID, and its label, which begins with it, is its value.
		key=${id/0x/k}
		create_key "$key" "$key" "$id" "$key" && share 3 "$key"
		;;
	esac
}

mine=
shared_object() {
	local place=$((RANDOM % 6)) what=$((RANDOM % 100)) key= v= gone=
	{ read -r key <"$dir/shared.$place"; } 2>/dev/null || key=
	if [ $place = "$w" ] && [ "$key" != "$mine" -o -z "$mine" ]; then share_new; return; fi
	[ -n "$key" ] || return
	next
	id
	case $place in
	0 | 1)
		if [ $what -lt 50 ]; then get "$key" "$O/$key.dat/attr/application"
		elif [ $what -lt 96 ]; then put "$key" "$O/$key.dat/attr/application" "$name.$seq"
		else destroy "$key" "$key.dat"
		fi
		;;
	2)
		if [ $what -lt 50 ]; then get "$key" "$O/$key.sec/attr/id"
		elif [ $what -lt 96 ]; then put "$key" "$O/$key.sec/attr/id" "$id"
		else destroy "$key" "$key.sec"
		fi
		;;
	3)
		begin
		: 2>"$dir/$name.e"
		set -- "$O/$key"*.sec
		if [ ! -d "$O" ]; then return; fi
		v=${1##*/} v=${v%.sec}
		[ "$#" = 1 ] || v=$*
		case $v in
		*'*'*) # nothing matched
			echo 'No such file' >"$dir/$name.e"
			done_ read "$key"
			;;
		*)
			done_ read "$key" '' "$v"
			begin
			if [ $what -lt 96 ]; then
				{ echo "$key.$name.$seq" >"$O/$v.sec/attr/label"; } 2>"$dir/$name.e"
				done_ write "$key" "$key.$name.$seq" '' "$v"
			else
				destroy "$key" "$v.sec" "$v"
			fi
			;;
		esac
		;;
	4 | 5)
		if [ $place = 4 -o $what -lt 96 ]; then get "$key" "$O/$key.dat/value"
		else destroy "$key" "$key.dat"
		fi
		;;
	esac
	if [ $? = 1 ] && [ $place = "$w" ]; then share_new; fi
}

login
while [ ! -e "$dir/stop" ]; do
	what=$((RANDOM % 100))
	if [ $what -lt 60 ]; then own_object
	elif [ $what -lt 75 ]; then sign
	else shared_object
	fi
done
