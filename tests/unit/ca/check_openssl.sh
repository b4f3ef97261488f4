#!/bin/sh
# Holds what the tests made against OpenSSL and GnuTLS.
#   check_openssl.sh leaf DIR SECONDS   DIR/leaf.pem under DIR/issuing-1.crt, DIR/root.crt
#   check_openssl.sh delta DIR SECONDS good|revoked   DIR/full.crl, DIR/delta.crl, DIR/leaf.pem
#   check_openssl.sh ocsp DIR SECONDS   DIR/answer.der, of a delegated responder
#   check_openssl.sh crl DIR SECONDS    DIR/list.crl (DER) and, if there, DIR/leaf.pem, which must be revoked
set -eu
kind=$1 dir=$2 at=$3

complain() {
	echo "check_openssl.sh: $*" >&2
	exit 1
}

# Reading must give no warning, not even on a list or certificate that is otherwise accepted.
quiet() {
	"$@" >"$dir/out.txt" 2>"$dir/err.txt" || complain "$* failed: $(cat "$dir/err.txt")"
	if grep -qiE 'warning|error|unsupported|unknown' "$dir/err.txt"; then
		complain "$* complained: $(cat "$dir/err.txt")"
	fi
}

case $kind in
leaf)
	quiet openssl verify -x509_strict -attime "$at" -CAfile "$dir/root.crt" -untrusted "$dir/issuing-1.crt" "$dir/leaf.pem"
	quiet openssl x509 -in "$dir/leaf.pem" -noout -text
	quiet certtool --certificate-info --infile "$dir/leaf.pem"
	grep -q 'Key Usage (critical)' "$dir/out.txt" || complain "certtool: no key usage"
	;;
crl)
	cat "$dir/issuing-1.crt" "$dir/root.crt" >"$dir/cas.pem"
	quiet openssl crl -inform DER -in "$dir/list.crl" -noout -text -CAfile "$dir/cas.pem"
	openssl crl -inform DER -in "$dir/list.crl" -noout -CAfile "$dir/cas.pem" 2>&1 | grep -q 'verify OK' || complain "openssl crl: signature"
	quiet certtool --crl-info --inder --infile "$dir/list.crl"
	if [ -f "$dir/leaf.pem" ]; then
		openssl crl -inform DER -in "$dir/list.crl" -out "$dir/list.pem"
		said=$(openssl verify -attime "$at" -crl_check -CAfile "$dir/root.crt" -untrusted "$dir/issuing-1.crt" \
			-CRLfile "$dir/list.pem" "$dir/leaf.pem" 2>&1) && complain "openssl verify: a revoked certificate was accepted"
		case $said in *"certificate revoked"*) ;; *) complain "openssl verify: $said" ;; esac
	fi
	;;
delta)
	# DIR/full.crl alone says the opposite of what it says with DIR/delta.crl.
	want=$4
	cat "$dir/issuing-1.crt" "$dir/root.crt" >"$dir/cas.pem"
	for list in full delta; do
		quiet openssl crl -inform DER -in "$dir/$list.crl" -noout -text -CAfile "$dir/cas.pem"
		openssl crl -inform DER -in "$dir/$list.crl" -noout -CAfile "$dir/cas.pem" 2>&1 | grep -q 'verify OK' ||
			complain "openssl crl: signature of $list"
		quiet certtool --crl-info --inder --infile "$dir/$list.crl"
		openssl crl -inform DER -in "$dir/$list.crl" -out "$dir/$list.pem"
	done
	verdict() {
		said=$(openssl verify -attime "$at" -crl_check "$@" -CAfile "$dir/root.crt" -untrusted "$dir/issuing-1.crt" \
			-CRLfile "$dir/full.pem" "$dir/leaf.pem" 2>&1) && { echo good; return; }
		case $said in *"certificate revoked"*) echo revoked ;; *) echo "$said" ;; esac
	}
	alone=$(verdict)
	cat "$dir/full.pem" "$dir/delta.pem" >"$dir/both.pem"
	with=$(verdict -use_deltas -extended_crl -CRLfile "$dir/both.pem")
	[ "$with" = "$want" ] || complain "with the delta: $want wanted, $with found"
	[ "$alone" != "$want" ] || complain "without the delta: $alone"
	;;
ocsp)
	quiet openssl ocsp -respin "$dir/answer.der" -CAfile "$dir/root.crt" -verify_other "$dir/issuing-1.crt" -resp_text \
		-attime "$at"
	grep -q 'OCSP No Check' "$dir/out.txt" || complain "openssl ocsp: no ocsp-nocheck"
	grep -q 'keyCompromise' "$dir/out.txt" || complain "openssl ocsp: no reason"
	grep -q 'Response verify OK' "$dir/err.txt" || complain "openssl ocsp: not believed"
	;;
*) complain "leaf, crl, delta or ocsp wanted" ;;
esac
