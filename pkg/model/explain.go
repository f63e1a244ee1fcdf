package model

import "time"

// Explanation says why a volume is where it is, or why it is nowhere: every pool
// that was looked at, each rule with the value wanted and the value seen, the
// weights, the winner, and what would have to change. The function that places
// writes it.
type Explanation struct {
	At       time.Time `json:"at"`
	Revision int64     `json:"revision,omitempty"`
	SizeGB   int64     `json:"size"`
	// Profile is the profile's id and name.
	ProfileID   string `json:"profileId,omitempty"`
	ProfileName string `json:"profileName,omitempty"`
	// Winner is the pool chosen; empty if none fits, and then Reason says why.
	WinnerID   string `json:"winnerId,omitempty"`
	WinnerName string `json:"winnerName,omitempty"`
	Reason     string `json:"reason"`
	// Considered pools were looked at; Fitting of them passed every rule.
	// Pools lists at most as many as asked for, best first; Omitted are the
	// rest.
	Considered int           `json:"considered"`
	Fitting    int           `json:"fitting"`
	Omitted    int           `json:"omitted,omitempty"`
	Pools      []PoolVerdict `json:"pools"`
}

// PoolVerdict is what the selector found of one pool.
type PoolVerdict struct {
	PoolID   string       `json:"poolId"`
	PoolName string       `json:"poolName"`
	Fits     bool         `json:"fits"`
	Rules    []RuleResult `json:"rules"`
	// Score is the sum of Weights; only for pools that fit.
	Score   float64        `json:"score,omitempty"`
	Weights []WeightResult `json:"weights,omitempty"`
	// Change says, for a pool that does not fit, what would have to change.
	Change []string `json:"change,omitempty"`
}

// RuleResult is one rule on one pool.
type RuleResult struct {
	Rule string `json:"rule"` // "freeCapacity", "extras.ioConnectivity.latency", ...
	Want string `json:"want"` // with its operator: ">= 10 GB"
	Have string `json:"have"`
	OK   bool   `json:"ok"`
	// Note says why a rule could not be evaluated (a missing key, a wrong
	// type, an unknown operator); the pool is then skipped, not the request.
	Note string `json:"note,omitempty"`
}

// WeightResult is one weigher's part of a score: Value in 0..1, times Weight.
type WeightResult struct {
	Weigher string  `json:"weigher"`
	Value   float64 `json:"value"`
	Weight  float64 `json:"weight"`
}
