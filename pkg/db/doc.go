// Package db is the store: typed records on etcd, one transaction per state
// change, and an indexed cache fed by a watch that serves every read.
//
// Keys are <prefix>/<resource>/<id>; the value is the record's JSON. Ids are
// unique over all tenants, so a key never depends on who asks; the tenant is
// part of the record and of the cache's indexes.
//
// Writing: build a Txn of guards and operations and Commit it. Transactions that
// are submitted together and touch different keys share one etcd transaction, so
// the price of a durable write falls with load; each stays atomic by itself.
//
// Reading: Table.Get and Table.List never go to etcd. A writer that wants to read
// its own write waits with Store.WaitRev for the revision that Commit gave it.
package db
