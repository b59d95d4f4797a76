package enginetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"p11fs/p11"
)

// A Step is one call, and what it may answer.
type Step struct {
	Line string
	Want []p11.RV
}

// A Case is a function in a state: the last of its steps.
type Case struct {
	Name  string
	Steps []Step
}

// Calls are the lines of all functions, each with all that it is called with.
func Calls() []string {
	var list []string
	with := func(name string, args ...string) {
		for _, a := range args {
			list = append(list, name+" "+a)
		}
	}
	list = append(list, "C_GetFunctionStatus", "C_CancelFunction", "C_InitToken", "C_CloseSession", "C_GetSessionInfo",
		"C_GetSessionValidationFlags", "C_GenerateRandom", "C_SeedRandom", "C_AsyncGetID", "C_AsyncComplete", "C_AsyncJoin", "C_GetOperationState", "C_SetOperationState",
		"C_Logout", "C_InitPIN", "C_EncapsulateKey", "C_DecapsulateKey", "C_FindObjectsInit", "C_FindObjects",
		"C_FindObjectsFinal", "C_WrapKey", "C_GetObjectSize", "C_GetAttributeValue", "C_GetAttributeValue gone", "C_DigestKey")
	with("C_Login", user, so, "other", "context")
	with("C_LoginUser", user)
	with("C_SetPIN", user, so)
	places := []string{"session", "private", "token", "private-token"}
	with("C_CreateObject", places...)
	with("C_CopyObject", places...)
	with("C_GenerateKey", places...)
	with("C_GenerateKeyPair", "session", "private")
	with("C_UnwrapKey", places...)
	with("C_DeriveKey", places...)
	with("C_DestroyObject", "session", "token")
	with("C_SetAttributeValue", "session", "token")
	with("C_SessionCancel", "all", "Sign", "FindObjects")
	for _, d := range duals() {
		list = append(list, d.call)
	}
	for _, p := range processes() {
		with(p.init, "public", "null", "private", "temp")
		with(p.next, "part", "last")
		list = append(list, p.one, p.begin, p.final)
	}
	for _, k := range kinds() {
		with(k.init, "public", "null")
		if k.keyed() {
			with(k.init, "private", "temp")
		}
		list = append(list, k.one)
		if k.update != "" {
			list = append(list, k.update, k.final)
		}
	}
	return list
}

// keyed says whether the door has a private and a temporary key for it.
func (k kind) keyed() bool { return k.update != "" && k.slot != "Digest" }

// setups are the calls that bring a session into each state of its operations.
func setups() [][]string {
	list := [][]string{
		{}, {"C_FindObjectsInit"}, {"C_FindObjectsInit", "C_FindObjects"}, {"C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal"},
		{"C_FindObjectsInit", "C_SessionCancel all"}, {"C_FindObjectsInit", "C_Logout"},
	}
	for _, k := range kinds() {
		begin := k.init + " public"
		list = append(list, []string{begin}, []string{begin, k.one}, []string{begin, "C_SessionCancel all"}, []string{begin, k.init + " null"})
		if k.update != "" {
			list = append(list, []string{begin, k.update}, []string{begin, k.update, k.one}, []string{begin, k.update, k.final})
		}
		if k.keyed() {
			list = append(list, []string{"make private", k.init + " private", "C_Logout"}, []string{"make private", k.init + " private", k.update, "C_Logout"},
				[]string{"make temp", k.init + " temp", "destroy temp"}, []string{"make temp", k.init + " temp", k.update, "destroy temp"})
		}
	}
	for _, p := range processes() {
		begin := p.init + " public"
		list = append(list, []string{begin}, []string{begin, p.one}, []string{begin, p.final}, []string{begin, p.begin},
			[]string{begin, p.begin, p.next + " part"}, []string{begin, p.begin, p.next + " last"}, []string{begin, p.begin, "C_SessionCancel all"},
			[]string{"make private", p.init + " private", p.begin, "C_Logout"}, []string{"make temp", p.init + " temp", p.begin, "destroy temp"})
	}
	for _, d := range duals() {
		one, other := "C_"+d.one+"Init public", "C_"+d.other+"Init public"
		list = append(list, []string{one, other}, []string{one, other, d.call}, []string{one, other, "C_" + d.one})
	}
	return list
}

// A state is a session's, with its login.
type state struct {
	name  string
	rw    bool
	login string
}

// Cases are functions in states: all of them, or every nth, which is enough of them for a
// door with the engine behind it. One goes on from the other, so that a door runs them in
// their order.
func Cases(every int) []Case {
	g := &generator{m: newModel()}
	g.state = "no session"
	g.begin()
	for _, call := range Calls() {
		g.try(nil, call)
	}
	pairs := 0
	left := func() bool {
		pairs++
		return pairs%every != 0
	}
	for _, s := range []state{
		{"read-only public", false, none}, {"read-only user", false, user},
		{"read-write public", true, none}, {"read-write user", true, user}, {"read-write SO", true, so},
	} {
		g.state = s.name
		for _, setup := range setups() {
			if s.login != user && slices.Contains(setup, "make private") || s.login == none && slices.Contains(setup, "C_Logout") {
				continue
			}
			for _, call := range Calls() {
				if left() {
					continue
				}
				g.reach(s)
				g.try(setup, call)
			}
		}
	}
	g.state = "closed"
	for _, setup := range setups() {
		if slices.Contains(setup, "C_Logout") {
			continue
		}
		g.reach(state{rw: true, login: none})
		for _, line := range append(setup, "C_CloseSession") {
			g.step(line)
		}
		for _, call := range Calls() {
			if !left() {
				g.try(nil, call)
			}
		}
	}
	return g.cases
}

// Walk is a way of n calls, chosen at random.
func Walk(seed uint64, n int) []Case {
	g := &generator{m: newModel(), state: fmt.Sprintf("walk %d", seed)}
	g.begin()
	r := rand.New(rand.NewPCG(seed, 0))
	calls := Calls()
	for range n {
		if !g.m.exists {
			g.reach(state{rw: r.IntN(2) == 0, login: g.m.login})
		}
		if r.IntN(8) == 0 {
			key := []string{"temp", "private"}[r.IntN(2)]
			switch has := key == "temp" && g.m.temp || key == "private" && g.m.private; {
			case has:
				g.step("destroy " + key)
			case key == "temp" || g.m.login == user:
				g.step("make " + key)
			}
		}
		g.try(nil, calls[r.IntN(len(calls))])
	}
	return g.cases
}

// A generator makes cases of what its model says.
type generator struct {
	m     *model
	state string
	steps []Step
	cases []Case
}

func (g *generator) begin() { g.step("begin") }

func (g *generator) step(line string) {
	g.steps = append(g.steps, Step{line, g.m.call(line)})
}

// reach brings the session into a state without operations.
func (g *generator) reach(s state) {
	if g.m.login == so && !s.rw && !g.m.exists {
		s.rw = true // there is no other
	}
	if g.m.exists && g.m.rw != s.rw {
		if g.m.login != none {
			g.step("C_Logout")
		}
		g.step("C_CloseSession")
	}
	if !g.m.exists {
		g.step("open-" + map[bool]string{false: "ro", true: "rw"}[s.rw])
	}
	if g.m.login != s.login && g.m.login != none {
		g.step("C_Logout")
	}
	if g.m.login != s.login {
		g.step("C_Login " + s.login)
	}
	if len(g.m.ops) > 0 || g.m.find {
		g.step("C_SessionCancel all")
	}
}

// try makes a case of a call after the setup's. No PIN is tried that is not right.
func (g *generator) try(setup []string, call string) {
	for _, line := range setup {
		g.step(line)
	}
	if g.m.exists && g.m.rw && call == "C_SetPIN "+map[bool]string{true: user, false: so}[g.m.login == so] {
		return
	}
	g.step(call)
	name := []string{g.state}
	if len(setup) > 0 {
		name = append(name, strings.Join(setup, ", "))
	}
	g.cases = append(g.cases, Case{strings.Join(append(name, call), ": "), g.steps})
	g.steps = nil
}

// Check compares what a call answered with what it may answer.
func (s Step) Check(got p11.RV) bool { return slices.Contains(s.Want, got) }
