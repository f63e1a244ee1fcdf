// Package arch holds the tests of the architecture: which package may know which.
package arch
