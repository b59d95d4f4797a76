package integration

import (
	"fmt"
	"strconv"
	"strings"

	"p11fs/p11"
)

// Reasons why a rule is no matter of files.
const (
	noFlags = "a session directory is opened for reading and writing: there is nowhere to write flags"
	noCopy  = "no file copies an object"
	noCalls = "an operation is an open file, of which a session has as many as it likes: its calls cannot be out of order"
	noMaker = "files make an object whole, and not from an arbitrary template"
)

func sessionRules() []tokenRule {
	return []tokenRule{
		{name: "a session is serial", cites: "§5.6.1", files: noFlags, deviates: stock("C_OpenSession takes a missing CKF_SERIAL_SESSION", map[string]string{"no flags": "CKR_OK", "read-write alone": "CKR_OK"}), run: func(r *rig) {
			r.a.call("open", "0").is("no flags", p11.CKR_SESSION_PARALLEL_NOT_SUPPORTED)
			r.a.call("open", "2").is("read-write alone", p11.CKR_SESSION_PARALLEL_NOT_SUPPORTED)
		}},
		{name: "a new session is public", cites: "§5.6, five states", run: func(r *rig) {
			r.a.open().isState("state", p11.CKS_RW_PUBLIC_SESSION)
		}},
		{name: "a session for reading is one", cites: "§5.6, five states", files: noFlags, run: func(r *rig) {
			s := r.a.openReadOnly()
			s.isState("public", p11.CKS_RO_PUBLIC_SESSION)
			s.login(p11.CKU_USER, userPIN).must()
			s.isState("user", p11.CKS_RO_USER_FUNCTIONS)
			r.a.open().isState("another, for writing", p11.CKS_RW_USER_FUNCTIONS)
			s.logout().must()
			s.isState("after logout", p11.CKS_RO_PUBLIC_SESSION)
		}},
		{name: "a session tells its flags", cites: "§5.6.4", run: func(r *rig) {
			got := r.a.call("state", r.a.open().id).must().values[1]
			r.is("flags", got, "6")
		}},
		{name: "login and logout are all sessions'", cites: "§5.6.8", run: func(r *rig) {
			one, two := r.a.open(), r.a.open()
			one.login(p11.CKU_USER, userPIN).is("login", p11.CKR_OK)
			one.isState("its own", p11.CKS_RW_USER_FUNCTIONS)
			two.isState("the other", p11.CKS_RW_USER_FUNCTIONS)
			two.logout().is("logout in the other", p11.CKR_OK)
			one.isState("its own after logout", p11.CKS_RW_PUBLIC_SESSION)
			two.isState("the other after logout", p11.CKS_RW_PUBLIC_SESSION)
		}},
		{name: "a session opened later is logged in", cites: "§5.6.1", run: func(r *rig) {
			r.a.opened()
			r.a.open().isState("state", p11.CKS_RW_USER_FUNCTIONS)
		}},
		{name: "a login is the application's alone", cites: "§5.6.8", run: func(r *rig) {
			other := r.b.open()
			r.a.opened()
			other.isState("another application", p11.CKS_RW_PUBLIC_SESSION)
			r.b.open().isState("its next session", p11.CKS_RW_PUBLIC_SESSION)
		}},
		{name: "two applications are different users", cites: "§5.6.8", run: func(r *rig) {
			user, so := r.a.opened(), r.b.open()
			so.login(p11.CKU_SO, r.so).is("SO beside the user", p11.CKR_OK)
			user.isState("user", p11.CKS_RW_USER_FUNCTIONS)
			so.isState("SO", p11.CKS_RW_SO_FUNCTIONS)
		}},
		{name: "logout of one is none of another", cites: "§5.6.10", run: func(r *rig) {
			one, other := r.a.opened(), r.b.opened()
			one.logout().is("logout", p11.CKR_OK)
			other.isState("another application", p11.CKS_RW_USER_FUNCTIONS)
		}},
		{name: "the security officer's state", cites: "§5.6, five states", run: func(r *rig) {
			s := r.a.open()
			s.login(p11.CKU_SO, r.so).is("login", p11.CKR_OK)
			s.isState("state", p11.CKS_RW_SO_FUNCTIONS)
			r.a.open().isState("another session", p11.CKS_RW_SO_FUNCTIONS)
		}},
		{name: "no security officer beside a session for reading", cites: "§5.6.8", files: noFlags, run: func(r *rig) {
			ro, s := r.a.openReadOnly(), r.a.open()
			s.login(p11.CKU_SO, r.so).is("with one for reading", p11.CKR_SESSION_READ_ONLY_EXISTS)
			ro.login(p11.CKU_SO, r.so).is("in one for reading", p11.CKR_SESSION_READ_ONLY_EXISTS)
			ro.close().must()
			s.login(p11.CKU_SO, r.so).is("without", p11.CKR_OK)
		}},
		{name: "no session for reading beside the security officer", cites: "§5.6.1", files: noFlags, run: func(r *rig) {
			s := r.a.open()
			s.login(p11.CKU_SO, r.so).must()
			r.a.call("open", readOnly).is("open", p11.CKR_SESSION_READ_WRITE_SO_EXISTS)
			s.logout().must()
			r.a.call("open", readOnly).is("after logout", p11.CKR_OK)
		}},
		{name: "a closed session is none", cites: "§5.6.2", run: func(r *rig) {
			s, other := r.a.open(), r.a.open()
			s.close().is("close", p11.CKR_OK)
			s.close().is("close again", p11.CKR_SESSION_HANDLE_INVALID)
			s.call("state").is("state", p11.CKR_SESSION_HANDLE_INVALID)
			s.login(p11.CKU_USER, userPIN).is("login", p11.CKR_SESSION_HANDLE_INVALID)
			s.logout().is("logout", p11.CKR_SESSION_HANDLE_INVALID)
			s.call("find", words("")).is("find", p11.CKR_SESSION_HANDLE_INVALID)
			s.generate("label=x").is("generate", p11.CKR_SESSION_HANDLE_INVALID)
			other.isState("another session", p11.CKS_RW_PUBLIC_SESSION)
		}},
		{name: "closing all sessions logs out", cites: "§5.6.3", run: func(r *rig) {
			one, two := r.a.opened(), r.a.open()
			r.a.call("closeall").is("close", p11.CKR_OK)
			one.call("state").is("the first", p11.CKR_SESSION_HANDLE_INVALID)
			two.call("state").is("the second", p11.CKR_SESSION_HANDLE_INVALID)
			r.a.open().isState("a new one", p11.CKS_RW_PUBLIC_SESSION)
		}},
		{name: "closing all sessions is the application's alone", cites: "§5.6.3", run: func(r *rig) {
			other := r.b.opened()
			r.a.open()
			r.a.call("closeall").must()
			other.isState("another application", p11.CKS_RW_USER_FUNCTIONS)
		}},
		{name: "closing the last session logs out", cites: "§5.6.2", run: func(r *rig) {
			one, two := r.a.opened(), r.a.open()
			one.close().must()
			two.isState("one is left", p11.CKS_RW_USER_FUNCTIONS)
			two.close().must()
			r.a.open().isState("none was left", p11.CKS_RW_PUBLIC_SESSION)
		}},
		{name: "a session is its application's alone", cites: "§5.6.1", run: func(r *rig) {
			s := r.a.open()
			r.b.call("state", s.id).is("state", p11.CKR_SESSION_HANDLE_INVALID)
			r.b.call("close", s.id).is("close", p11.CKR_SESSION_HANDLE_INVALID)
			r.b.call("login", s.id, "1", hexOf(userPIN)).is("login", p11.CKR_SESSION_HANDLE_INVALID)
			s.isState("and stays", p11.CKS_RW_PUBLIC_SESSION)
		}},
		{name: "sessions have numbers of their own", cites: "§5.6.1", run: func(r *rig) {
			one, two := r.a.open(), r.a.open()
			r.is("two sessions have two numbers", fmt.Sprint(one.id != two.id), "true")
		}},
		{name: "the token counts its sessions", cites: "§5.5.4, CK_TOKEN_INFO", run: func(r *rig) {
			count := func() int {
				n, err := strconv.ParseInt(r.a.call("token").must().values[1], 16, 64)
				if err != nil {
					r.t.Fatal(err)
				}
				return int(n)
			}
			before := count()
			one, _ := r.a.open(), r.a.open()
			r.is("two opened", strconv.Itoa(count()-before), "2")
			one.close().must()
			r.is("one closed", strconv.Itoa(count()-before), "1")
		}},
		{name: "a session for reading makes session objects only", cites: "§5.6, access to objects", files: noFlags, run: func(r *rig) {
			s := r.a.openReadOnly()
			s.generate("label=public").is("a public session object", p11.CKR_OK)
			s.generate("token=true label=public-token").is("a public token object", p11.CKR_SESSION_READ_ONLY)
			s.login(p11.CKU_USER, userPIN).must()
			s.generate("private=true label=private").is("a private session object", p11.CKR_OK)
			s.generate("private=true token=true label=private-token").is("a private token object", p11.CKR_SESSION_READ_ONLY)
		}},
		{name: "a session for reading changes session objects only", cites: "§5.6, access to objects", files: noFlags, deviates: stock("C_DestroyObject does not look at the session", map[string]string{"destroy of a token object": "CKR_OK", "which stays": "CKR_OBJECT_HANDLE_INVALID"}), run: func(r *rig) {
			rw, ro := r.a.open(), r.a.openReadOnly()
			stored, own := rw.key("token=true label=stored"), ro.key("label=own")
			ro.set(stored, "label=x").is("set of a token object", p11.CKR_SESSION_READ_ONLY)
			ro.call("destroy", stored).is("destroy of a token object", p11.CKR_SESSION_READ_ONLY)
			ro.isVisible("which stays", stored, p11.CKR_OK)
			ro.set(own, "label=x").is("set of a session object", p11.CKR_OK)
			ro.call("destroy", own).is("destroy of a session object", p11.CKR_OK)
		}},
		{name: "a session for reading sets no PIN", cites: "§5.5.9", files: noFlags, run: func(r *rig) {
			s := r.a.openReadOnly()
			s.call("setpin", hexOf(userPIN), hexOf("new-1")).is("public", p11.CKR_SESSION_READ_ONLY)
			s.login(p11.CKU_USER, userPIN).must()
			s.call("setpin", hexOf(userPIN), hexOf("new-1")).is("user", p11.CKR_SESSION_READ_ONLY)
		}},
	}
}

func loginRules() []tokenRule {
	const wrong = "0000"
	flags := func(r *rig, step string, set, clear p11.Flags) {
		n, err := strconv.ParseUint(r.a.call("token").must().values[0], 16, 64)
		if err != nil {
			r.t.Fatal(err)
		}
		r.is(step, (p11.Flags(n) & (set | clear)).String(), set.String())
	}
	const low, final, locked = p11.CKF_USER_PIN_COUNT_LOW, p11.CKF_USER_PIN_FINAL_TRY, p11.CKF_USER_PIN_LOCKED
	return []tokenRule{
		{name: "who is logged in does not log in", cites: "§5.6.8", run: func(r *rig) {
			s, other := r.a.opened(), r.a.open()
			s.login(p11.CKU_USER, userPIN).is("in the same session", p11.CKR_USER_ALREADY_LOGGED_IN)
			other.login(p11.CKU_USER, userPIN).is("in another", p11.CKR_USER_ALREADY_LOGGED_IN)
			other.login(p11.CKU_USER, wrong).is("with a wrong PIN", p11.CKR_USER_ALREADY_LOGGED_IN)
			s.isState("and stays so", p11.CKS_RW_USER_FUNCTIONS)
		}},
		{name: "one user at a time", cites: "§5.6.8", run: func(r *rig) {
			s := r.a.opened()
			s.login(p11.CKU_SO, r.so).is("SO after the user", p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN)
			s.isState("the user stays", p11.CKS_RW_USER_FUNCTIONS)
			s.logout().must()
			s.login(p11.CKU_SO, r.so).is("SO after the logout", p11.CKR_OK)
			s.login(p11.CKU_SO, r.so).is("SO again", p11.CKR_USER_ALREADY_LOGGED_IN)
			s.login(p11.CKU_USER, userPIN).is("user after the SO", p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN)
			s.isState("the SO stays", p11.CKS_RW_SO_FUNCTIONS)
		}},
		{name: "nobody logs out", cites: "§5.6.10", run: func(r *rig) {
			s := r.a.open()
			s.logout().is("before a login", p11.CKR_USER_NOT_LOGGED_IN)
			s.login(p11.CKU_USER, userPIN).must()
			s.logout().is("after it", p11.CKR_OK)
			s.logout().is("twice", p11.CKR_USER_NOT_LOGGED_IN)
		}},
		{name: "a wrong PIN is no login", cites: "§5.6.8", run: func(r *rig) {
			s := r.a.open()
			s.login(p11.CKU_USER, wrong).is("of the user", p11.CKR_PIN_INCORRECT)
			s.login(p11.CKU_SO, wrong).is("of the SO", p11.CKR_PIN_INCORRECT)
			s.login(p11.CKU_USER, r.so).is("another's", p11.CKR_PIN_INCORRECT)
			s.isState("state", p11.CKS_RW_PUBLIC_SESSION)
		}},
		{name: "wrong PINs are counted", cites: "§3.2, CK_TOKEN_INFO flags", run: func(r *rig) {
			s := r.a.open()
			flags(r, "none", 0, low|final|locked)
			s.login(p11.CKU_USER, wrong).fails(p11.CKR_PIN_INCORRECT)
			flags(r, "one", low, final|locked)
			s.login(p11.CKU_USER, userPIN).is("the right one", p11.CKR_OK)
			flags(r, "after the right one", 0, low|final|locked)
		}},
		{name: "the third wrong PIN locks", cites: "§5.6.8, CKF_USER_PIN_LOCKED", run: func(r *rig) {
			s := r.a.open()
			s.login(p11.CKU_USER, wrong).is("first", p11.CKR_PIN_INCORRECT)
			s.login(p11.CKU_USER, wrong).is("second", p11.CKR_PIN_INCORRECT)
			flags(r, "one is left", final, locked)
			r.b.open().login(p11.CKU_USER, wrong).fails(p11.CKR_PIN_INCORRECT, p11.CKR_PIN_LOCKED)
			flags(r, "none is left", locked, 0)
			s.login(p11.CKU_USER, userPIN).is("the right one", p11.CKR_PIN_LOCKED)
			s.isState("state", p11.CKS_RW_PUBLIC_SESSION)
		}},
		{name: "the security officer unlocks", cites: "§5.5.8", run: func(r *rig) {
			s := r.a.open()
			for range 3 {
				s.login(p11.CKU_USER, wrong)
			}
			s.login(p11.CKU_SO, r.so).is("SO", p11.CKR_OK)
			s.call("initpin", hexOf("new-1")).is("C_InitPIN", p11.CKR_OK)
			flags(r, "flags", 0, locked)
			s.logout().must()
			s.login(p11.CKU_USER, "new-1").is("user", p11.CKR_OK)
		}},
		{name: "the security officer's wrong PINs are counted apart", cites: "§3.2, CK_TOKEN_INFO flags", run: func(r *rig) {
			s := r.a.open()
			s.login(p11.CKU_SO, wrong).is("wrong", p11.CKR_PIN_INCORRECT)
			flags(r, "after a wrong one", p11.CKF_SO_PIN_COUNT_LOW, low|final|locked|p11.CKF_SO_PIN_LOCKED)
			s.login(p11.CKU_SO, r.so).is("right", p11.CKR_OK)
			flags(r, "after the right one", 0, p11.CKF_SO_PIN_COUNT_LOW|p11.CKF_SO_PIN_FINAL_TRY|p11.CKF_SO_PIN_LOCKED)
		}},
		{name: "there are no other users", cites: "§5.6.8", files: "login takes user, so and context-specific, and anything else for a PIN", run: func(r *rig) {
			r.a.open().login(7, userPIN).is("login", p11.CKR_USER_TYPE_INVALID)
		}},
		{name: "nothing to authenticate", cites: "§5.6.8, CKU_CONTEXT_SPECIFIC", files: "login keeps the PIN for the next use of a key", deviates: stock("its C_Login knows no CKU_CONTEXT_SPECIFIC", map[string]string{"login": "CKR_USER_TYPE_INVALID"}), run: func(r *rig) {
			r.a.opened().login(p11.CKU_CONTEXT_SPECIFIC, userPIN).is("login", p11.CKR_OPERATION_NOT_INITIALIZED)
		}},
		{name: "a token without a user's PIN", cites: "§5.6.8", run: func(r *rig) {
			r.a.call("inittoken", hexOf(r.so), hexOf("new")).is("C_InitToken", p11.CKR_OK)
			flags(r, "flags", p11.CKF_TOKEN_INITIALIZED, p11.CKF_USER_PIN_INITIALIZED)
			s := r.a.open()
			s.login(p11.CKU_USER, userPIN).is("login", p11.CKR_USER_PIN_NOT_INITIALIZED)
			s.login(p11.CKU_SO, r.so).is("SO", p11.CKR_OK)
		}},
		{name: "a PIN is as long as the token says", cites: "§5.5.9", run: func(r *rig) {
			s := r.a.opened()
			s.call("setpin", hexOf(userPIN), hexOf("1")).is("too short", p11.CKR_PIN_LEN_RANGE)
			s.call("setpin", hexOf(userPIN), hexOf(strings.Repeat("x", r.a.call("limits").number(2)+1))).is("too long", p11.CKR_PIN_LEN_RANGE)
			s.logout().must()
			s.login(p11.CKU_USER, userPIN).is("the old one stays", p11.CKR_OK)
		}},
		{name: "the user sets the PIN", cites: "§5.5.9", run: func(r *rig) {
			s := r.a.opened()
			s.call("setpin", hexOf(userPIN), hexOf("new-1")).is("C_SetPIN", p11.CKR_OK)
			s.isState("state", p11.CKS_RW_USER_FUNCTIONS)
			s.logout().must()
			s.login(p11.CKU_USER, userPIN).is("the old one", p11.CKR_PIN_INCORRECT)
			s.login(p11.CKU_USER, "new-1").is("the new one", p11.CKR_OK)
			r.b.open().login(p11.CKU_USER, "new-1").is("in another application", p11.CKR_OK)
		}},
		{name: "who is not logged in sets the user's PIN", cites: "§5.5.9", run: func(r *rig) {
			s := r.a.open()
			s.call("setpin", hexOf(userPIN), hexOf("new-1")).is("C_SetPIN", p11.CKR_OK)
			s.login(p11.CKU_USER, "new-1").is("the new one", p11.CKR_OK)
		}},
		{name: "a PIN is set by who knows the old one", cites: "§5.5.9", run: func(r *rig) {
			s := r.a.opened()
			s.call("setpin", hexOf(wrong), hexOf("new-1")).is("user", p11.CKR_PIN_INCORRECT)
			s.logout().must()
			s.call("setpin", hexOf(wrong), hexOf("new-1")).is("public", p11.CKR_PIN_INCORRECT)
			s.login(p11.CKU_SO, r.so).must()
			s.call("setpin", hexOf(wrong), hexOf("new-1")).is("SO", p11.CKR_PIN_INCORRECT)
			s.call("setpin", hexOf(userPIN), hexOf("new-1")).is("SO with the user's", p11.CKR_PIN_INCORRECT)
			s.logout().must()
			s.login(p11.CKU_USER, userPIN).is("the old one stays", p11.CKR_OK)
		}},
		{name: "the security officer sets the own PIN", cites: "§5.5.9", stock: "its C_InitToken wraps the master key under the default PIN, so nobody logs in afterwards", run: func(r *rig) {
			s := r.a.open()
			s.login(p11.CKU_SO, r.so).must()
			old := r.so
			s.call("setpin", hexOf(old), hexOf("new-so-1")).is("C_SetPIN", p11.CKR_OK).must()
			r.so = "new-so-1"
			s.isState("state", p11.CKS_RW_SO_FUNCTIONS)
			s.logout().must()
			s.login(p11.CKU_SO, old).is("the old one", p11.CKR_PIN_INCORRECT)
			s.login(p11.CKU_USER, userPIN).is("the user's stays", p11.CKR_OK)
			s.logout().must()
			s.login(p11.CKU_SO, r.so).is("the new one", p11.CKR_OK)
		}},
		{name: "the security officer alone gives the first PIN", cites: "§5.5.8", run: func(r *rig) {
			s := r.a.open()
			s.call("initpin", hexOf("new-1")).is("public", p11.CKR_USER_NOT_LOGGED_IN)
			s.login(p11.CKU_USER, userPIN).must()
			s.call("initpin", hexOf("new-1")).is("user", p11.CKR_USER_NOT_LOGGED_IN)
			s.logout().must()
			s.login(p11.CKU_SO, r.so).must()
			s.call("initpin", hexOf("1")).is("too short", p11.CKR_PIN_LEN_RANGE)
			s.call("initpin", hexOf("new-1")).is("SO", p11.CKR_OK)
			s.logout().must()
			s.login(p11.CKU_USER, "new-1").is("which holds", p11.CKR_OK)
		}},
		{name: "a new PIN opens the old objects", cites: "§5.5.8", run: func(r *rig) {
			s := r.a.opened()
			s.key("token=true private=true label=kept")
			s.logout().must()
			s.login(p11.CKU_SO, r.so).must()
			s.call("initpin", hexOf("new-1")).must()
			s.logout().must()
			s.login(p11.CKU_USER, "new-1").must()
			s.isFound("found", "label=kept", 1)
		}},
		{name: "no token is initialised under a session", cites: "§5.5.7", run: func(r *rig) {
			s := r.a.open()
			r.a.call("inittoken", hexOf(r.so), hexOf("new")).is("one's own", p11.CKR_SESSION_EXISTS)
			r.b.call("inittoken", hexOf(r.so), hexOf("new")).is("another's", p11.CKR_SESSION_EXISTS)
			s.isState("which stays", p11.CKS_RW_PUBLIC_SESSION)
		}},
		{name: "the security officer's PIN initialises", cites: "§5.5.7", run: func(r *rig) {
			s := r.a.open()
			s.key("token=true label=kept")
			r.a.call("closeall").must()
			r.a.call("inittoken", hexOf(wrong), hexOf("new")).is("a wrong one", p11.CKR_PIN_INCORRECT)
			r.a.call("inittoken", hexOf(userPIN), hexOf("new")).is("the user's", p11.CKR_PIN_INCORRECT)
			r.a.open().isFound("objects stay", "label=kept", 1)
			r.a.call("closeall").must()
			r.a.call("inittoken", hexOf(r.so), hexOf("new")).is("the right one", p11.CKR_OK)
			r.a.open().isFound("objects go", "", 0)
			r.b.open().isFound("for others too", "", 0)
		}},
	}
}
