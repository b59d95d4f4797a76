package integration

import (
	"strconv"

	"p11fs/p11"
)

func visibilityRules() []tokenRule {
	return []tokenRule{
		{name: "private objects are not there before login", cites: "§5.7.7, §4.4 CKA_PRIVATE", run: func(r *rig) {
			s := r.a.opened()
			key := s.key("token=true private=true label=hidden")
			s.key("token=true label=open")
			s.isFound("user", "", 2)
			s.logout().must()
			s.isFound("public", "", 1)
			s.isFound("by its label", "label=hidden", 0)
			s.isFound("by its class", "class=secret-key", 1)
			s.isVisible("by its handle", key, p11.CKR_OBJECT_HANDLE_INVALID)
			s.login(p11.CKU_USER, userPIN).must()
			s.isFound("user again", "label=hidden", 1)
		}},
		{name: "private objects are none of the security officer's", cites: "§5.6, access to objects", deviates: stock("the SO does nothing before the first PIN of a new token is changed", map[string]string{"SO": "CKR_PIN_EXPIRED", "a session object": "CKR_PIN_EXPIRED", "a token object": "CKR_PIN_EXPIRED", "a public token object": "CKR_PIN_EXPIRED"}), run: func(r *rig) {
			s := r.a.opened()
			s.key("token=true private=true label=hidden")
			s.logout().must()
			s.login(p11.CKU_SO, r.so).must()
			s.isFound("SO", "label=hidden", 0)
			s.generate("private=true label=session").is("a session object", p11.CKR_USER_NOT_LOGGED_IN)
			s.generate("token=true private=true label=token").is("a token object", p11.CKR_USER_NOT_LOGGED_IN)
			s.generate("token=true label=public").is("a public token object", p11.CKR_OK)
		}},
		{name: "a private object that is not there is not changed", cites: "§5.7", run: func(r *rig) {
			s := r.a.opened()
			key := s.key("token=true private=true label=hidden")
			s.logout().must()
			s.set(key, "label=x").is("set", p11.CKR_OBJECT_HANDLE_INVALID)
			s.call("destroy", key).is("destroy", p11.CKR_OBJECT_HANDLE_INVALID)
			s.login(p11.CKU_USER, userPIN).must()
			s.isFound("and stays", "label=hidden", 1)
		}},
		{name: "a private key that is not there is not used", cites: "§5.13.1", run: func(r *rig) {
			s := r.a.opened()
			key := s.mac("token=true private=true label=hidden")
			s.sign(key, "00").is("user", p11.CKR_OK)
			s.logout().must()
			s.sign(key, "00").is("public", p11.CKR_KEY_HANDLE_INVALID)
		}},
		{name: "logout destroys private session objects", cites: "§5.6.10", run: func(r *rig) {
			s := r.a.opened()
			key := s.key("private=true label=gone")
			s.key("label=kept")
			s.logout().must()
			s.isVisible("by its handle", key, p11.CKR_OBJECT_HANDLE_INVALID)
			s.login(p11.CKU_USER, userPIN).must()
			s.isFound("after the next login", "label=gone", 0)
			s.isFound("a public one stays", "label=kept", 1)
		}},
		{name: "session objects end with their session", cites: "§4.4 CKA_TOKEN, §5.6.2", run: func(r *rig) {
			s, other := r.a.open(), r.a.open()
			key := s.key("label=gone")
			other.key("label=kept")
			other.isFound("before", "", 2)
			s.close().must()
			other.isFound("after", "", 1)
			other.isVisible("by its handle", key, p11.CKR_OBJECT_HANDLE_INVALID)
			other.isFound("that of another session", "label=kept", 1)
		}},
		{name: "session objects end with all sessions", cites: "§5.6.3", run: func(r *rig) {
			r.a.open().key("label=gone")
			r.a.call("closeall").must()
			r.a.open().isFound("after", "", 0)
		}},
		{name: "token objects outlive all sessions", cites: "§4.4 CKA_TOKEN", run: func(r *rig) {
			s := r.a.opened()
			s.key("token=true private=true label=private")
			s.key("token=true label=public")
			r.a.call("closeall").must()
			s = r.a.open()
			s.isFound("public", "", 1)
			s.login(p11.CKU_USER, userPIN).must()
			s.isFound("user", "", 2)
		}},
		{name: "session objects are all sessions' of the application", cites: "§5.6, session objects", run: func(r *rig) {
			s, other := r.a.open(), r.a.open()
			key := s.key("label=shared")
			other.isFound("found", "label=shared", 1)
			other.isVisible("by its handle", key, p11.CKR_OK)
			other.set(key, "label=changed").is("changed", p11.CKR_OK)
			s.isFound("for both", "label=changed", 1)
		}},
		{name: "session objects are no other application's", cites: "§5.6, session objects", run: func(r *rig) {
			s, other := r.a.open(), r.b.open()
			key := s.key("label=own")
			other.isFound("found", "label=own", 0)
			other.isVisible("by its handle", key, p11.CKR_OBJECT_HANDLE_INVALID)
			other.call("destroy", key).is("destroyed", p11.CKR_OBJECT_HANDLE_INVALID)
			s.isFound("and stays", "label=own", 1)
		}},
		{name: "a handle of a private object is its application's alone", cites: "§5.6.10", run: func(r *rig) {
			key := r.a.opened().key("token=true private=true label=hidden")
			other := r.b.open()
			other.isVisible("public", key, p11.CKR_OBJECT_HANDLE_INVALID)
			other.isFound("public", "label=hidden", 0)
		}},
		{name: "token objects are everybody's at once", cites: "§5.6, token objects", deviates: stock("a search does not look whether what it knows has changed", map[string]string{"changed": "0", "no more as before": "1"}), run: func(r *rig) {
			s, other := r.a.open(), r.b.open()
			other.isFound("before", "", 0)
			key := s.key("token=true label=new")
			other.isFound("made", "label=new", 1)
			s.set(key, "label=changed").must()
			other.isFound("changed", "label=changed", 1)
			other.isFound("no more as before", "label=new", 0)
		}},
		{name: "what is destroyed is gone for everybody", cites: "§5.7.3", run: func(r *rig) {
			s, other := r.a.open(), r.b.open()
			key := s.key("token=true label=gone")
			found := other.call("find", words("label=gone")).one()
			s.call("destroy", key).is("destroy", p11.CKR_OK)
			s.isVisible("for its application", key, p11.CKR_OBJECT_HANDLE_INVALID)
			s.call("destroy", key).is("destroy again", p11.CKR_OBJECT_HANDLE_INVALID)
			other.isFound("for another", "", 0)
			other.isVisible("by another's handle", found, p11.CKR_OBJECT_HANDLE_INVALID)
		}},
		{name: "private token objects are every user's at once", cites: "§5.6, token objects", run: func(r *rig) {
			s, other := r.a.opened(), r.b.opened()
			s.key("token=true private=true label=new")
			other.isFound("made", "label=new", 1)
			found := other.call("find", words("label=new")).one()
			other.call("destroy", found).is("destroyed", p11.CKR_OK)
			s.isFound("destroyed", "label=new", 0)
		}},
		{name: "private objects want a login", cites: "§5.6, access to objects", run: func(r *rig) {
			s := r.a.open()
			s.generate("private=true label=session").is("a session object", p11.CKR_USER_NOT_LOGGED_IN)
			s.generate("token=true private=true label=token").is("a token object", p11.CKR_USER_NOT_LOGGED_IN)
			s.isFound("nothing was made", "", 0)
		}},
		{name: "public objects want none", cites: "§5.6, access to objects", run: func(r *rig) {
			s := r.a.open()
			s.generate("label=session").is("a session object", p11.CKR_OK)
			s.generate("token=true label=token").is("a token object", p11.CKR_OK)
			s.isFound("both were made", "", 2)
		}},
		{name: "the user makes objects of all kinds", cites: "§5.6, access to objects", run: func(r *rig) {
			s := r.a.opened()
			for _, c := range []struct{ step, template string }{
				{"a public session object", "label=one"},
				{"a public token object", "token=true label=two"},
				{"a private session object", "private=true label=three"},
				{"a private token object", "private=true token=true label=four"},
			} {
				s.isVisible(c.step, s.generate(c.template).is(c.step, p11.CKR_OK).one(), p11.CKR_OK)
			}
		}},
		{name: "what does not match is not found", cites: "§5.7.7", run: func(r *rig) {
			s := r.a.open()
			s.key("label=one id=0x01")
			s.key("label=two id=0x01")
			s.isFound("all", "", 2)
			s.isFound("by one attribute", "id=0x01", 2)
			s.isFound("by two", "id=0x01 label=two", 1)
			s.isFound("by two of different objects", "id=0x02 label=two", 0)
			s.isFound("by a part of the value", "label=tw", 0)
			s.isFound("by an attribute that none has", "modulus=0x01", 0)
			s.isFound("by a computed attribute", "local=true", 2)
		}},
		{name: "a secret is not found out by searching", cites: "§5.7.7, §4.10 CKA_SENSITIVE", files: noMaker, deviates: stock("a search compares secrets too", map[string]string{"by value": "2"}), run: func(r *rig) {
			s := r.a.open()
			secret := "class=secret-key key-type=generic-secret token=false private=false value=0x00112233445566778899aabbccddeeff"
			s.call("create", with(secret, "sensitive=true label=sensitive")).must()
			s.call("create", with(secret, "sensitive=false extractable=true label=open")).must()
			s.isFound("by value", "value=0x00112233445566778899aabbccddeeff", 1)
		}},
		{name: "a search is one at a time", cites: "§5.7.7 to §5.7.9", files: noCalls, run: func(r *rig) {
			s := r.a.open()
			s.key("label=one")
			s.key("label=two")
			s.call("findnext", "1").is("next before init", p11.CKR_OPERATION_NOT_INITIALIZED)
			s.call("findfinal").is("final before init", p11.CKR_OPERATION_NOT_INITIALIZED)
			s.call("findinit", words("")).is("init", p11.CKR_OK)
			s.call("findinit", words("")).is("init again", p11.CKR_OPERATION_ACTIVE)
			for _, want := range []int{1, 1, 0, 0} {
				r.is("so many at a time", strconv.Itoa(len(s.call("findnext", "1").must().values)), strconv.Itoa(want))
			}
			s.call("findfinal").is("final", p11.CKR_OK)
			s.call("findfinal").is("final again", p11.CKR_OPERATION_NOT_INITIALIZED)
		}},
	}
}
