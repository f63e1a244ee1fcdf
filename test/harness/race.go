//go:build race

package harness

// raceEnabled says that the test itself has the race detector: its programs then
// get it too.
const raceEnabled = true
