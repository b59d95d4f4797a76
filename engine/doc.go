// Package engine applies the rules of PKCS#11 v3.1 to tokens: applications,
// slots, sessions and their states, login and logout, what objects may be and
// who may see them, and cryptographic operations. It does no I/O; tokens do
// theirs below it (package tokens), and every door to them stands on this one
// API, so that a rule is enforced once.
//
// # Who sees what
//
// An Application shares logins, sessions and session objects among its sessions,
// and nothing with other applications. A private object that an application may
// not see does not exist for it: lists, counts and errors are those of a token
// without it, and its handle gives CKR_OBJECT_HANDLE_INVALID like any number that
// was never a handle. Handles of private token objects hold for one login: the
// application sees the token's handle under a mask made at login, so that no
// handle outlives a logout (§5.6.10).
//
// Each use of an operation checks again that its session is open and that the
// login under which its key was found still stands. Logout, a PIN locked by
// anyone, and token initialisation therefore end operations with private keys at
// their next use, and give up their keys at once.
//
// # Choices where the standard leaves one
//
//   - What is true of a key where its template does not say is in keyDefaults, in
//     two columns: for people at the file tree, and for programs, which are written
//     for what common tokens say. Making a private object without a login gives
//     CKR_USER_NOT_LOGGED_IN.
//   - CKA_EXTRACTABLE is false, but true for what a program unwraps (§5.18.4).
//   - Imported and unwrapped keys are neither CKA_ALWAYS_SENSITIVE nor
//     CKA_NEVER_EXTRACTABLE: they have been outside.
//   - CKA_VALUE_LEN and CKA_MODULUS_BITS, which the standard forbids on import,
//     are taken when they agree with the value.
//   - Dates are information: an expired key still works (§4.7.2).
//   - An empty CKA_ALLOWED_MECHANISMS allows all, as an absent one does.
//   - A search for secret attributes finds no key that would not reveal them.
//   - A copy may become private, not public; what cannot be modified has copies
//     that cannot be either.
//   - Operations of different kinds may be active in a session at once, one of
//     each. Free-standing operations (Session.Begin) are not limited.
//
// # Locks
//
// Taken in this order, each guarding what stands below it in its struct; none
// but the last is held while a token is called:
//
//  1. Application.mu: sessions, appSlots
//  2. appSlot.mu: login, numbers of sessions
//  3. sessionObjects.mu: changes of an application's session objects
//  4. handleTree.mu: handles of session objects of a slot
//  5. Slot.mu: numbers of sessions, initialisation
//  6. Engine.mu: applications
//  7. quota.mu: what each uid holds
//  8. Session.mu: operations in progress, the active ones, the search
//  9. Operation.mu: one operation, held during the token's call
//  10. turns.mu: whose turn it is to work
//  11. longs.mu: who does work that takes long
//  12. ivCounter.mu: the IVs of a session key
//
// Taking Operation.mu before Session.mu is allowed nowhere: an operation that has
// ended is taken out of its session after its lock is given back. Whoever ends
// operations never waits for one: see Operation. A signature over an open
// operation takes Operation.mu only.
//
// tokens.Index and tokens.Object lock for themselves, below all of these.
package engine
