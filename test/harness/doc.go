// Package harness runs the real programs of osds, osdslet, osdsdock and osdsctl,
// as child processes for tests: on loopback ports that the kernel chose, with
// directories and configuration files of their own. It starts, stops, kills and
// stalls them, waits for what they report, and looks for what they leave behind.
//
// Nothing in it waits for a fixed time: every wait is a poll with a bound, and
// the bound is only how long a broken program may hold up the tests.
package harness
