-- Rotation campaigns: a part of the fleet is asked to rotate, in waves. A member is a device and the
-- certificate that it is to replace; which members may rotate is told by one number of the campaign's row,
-- the frontier, and not by a change of each member.

CREATE TABLE jitrca.campaign (
	campaign_id text COLLATE "C" PRIMARY KEY CHECK (campaign_id ~ '^[0-9a-f]{32}$'),
	state text COLLATE "C" NOT NULL CHECK (state IN
		('filling', 'running', 'paused', 'halted', 'aborted', 'done')),
	why text NOT NULL DEFAULT '', -- of its last change: a code of ours, or what somebody said
	actor text COLLATE "C" NOT NULL,
	request_id text NOT NULL,
	comment text NOT NULL DEFAULT '',
	selector text NOT NULL, -- JSON, as it was asked
	issued_until timestamptz NOT NULL, -- certificates issued later are not part of it
	-- What was asked; sizes in devices, and as shares in hundredths of a percent until members are known.
	canary bigint NOT NULL,
	canary_share integer NOT NULL,
	canary_confirmed integer NOT NULL, -- percent that must have confirmed
	soak_s bigint NOT NULL,
	wave bigint NOT NULL,
	wave_share integer NOT NULL,
	pace_per_hour bigint NOT NULL CHECK (pace_per_hour > 0),
	confirm_within_s bigint NOT NULL,
	halt_percent integer NOT NULL,
	halt_least bigint NOT NULL,
	-- Filling: where it is, and what it left out.
	cursor_at timestamptz,
	cursor_serial bytea,
	members bigint NOT NULL DEFAULT 0,
	left_rotating bigint NOT NULL DEFAULT 0, -- had a successor already
	left_other bigint NOT NULL DEFAULT 0,    -- another key, type or attribute, or not the current one
	left_taken bigint NOT NULL DEFAULT 0,    -- in another campaign
	-- Where it is. A member is asked when its rank is at most the frontier.
	stage text COLLATE "C" NOT NULL DEFAULT 'canary' CHECK (stage IN ('canary', 'wave')),
	wave_number integer NOT NULL DEFAULT 0,
	wave_left bigint NOT NULL DEFAULT 0,     -- of this wave, not yet asked
	asked bigint NOT NULL DEFAULT 0,
	frontier bigint NOT NULL DEFAULT -1,
	wave_from bigint NOT NULL DEFAULT -1,    -- the frontier when this wave began
	judge_from bigint NOT NULL DEFAULT -1,   -- and the one before, or when it was resumed
	look_from bigint NOT NULL DEFAULT -1,    -- members up to here were looked at in this round
	crowded boolean NOT NULL DEFAULT false,  -- as many as may be have not confirmed: nobody else is asked
	moved_at timestamptz,
	wave_at timestamptz,
	started_at timestamptz,
	created_at timestamptz NOT NULL DEFAULT now(),
	state_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX campaign_open ON jitrca.campaign (campaign_id) WHERE state NOT IN ('aborted', 'done');
CREATE INDEX campaign_created ON jitrca.campaign (created_at, campaign_id);

-- rank is drawn by a hash of campaign and device, so each wave is a fair sample of all.
-- state: waiting, pending (has a successor), late (and has not confirmed it in time), failed (the successor
-- ended unconfirmed), confirmed, gone (revoked, replaced, decommissioned).
CREATE TABLE jitrca.campaign_member (
	campaign_id text COLLATE "C" NOT NULL REFERENCES jitrca.campaign,
	rank bigint NOT NULL CHECK (rank >= 0),
	device_id text COLLATE "C" NOT NULL,
	issuer_id integer NOT NULL,
	serial bytea NOT NULL CHECK (length(serial) = 16),
	state text COLLATE "C" NOT NULL DEFAULT 'waiting' CHECK (state IN
		('waiting', 'pending', 'late', 'failed', 'confirmed', 'gone')),
	since timestamptz, -- when the first successor was seen
	PRIMARY KEY (campaign_id, rank, device_id)
) WITH (fillfactor = 80);
CREATE INDEX campaign_member_device ON jitrca.campaign_member (device_id, campaign_id);
CREATE INDEX campaign_member_state ON jitrca.campaign_member (campaign_id, state, rank, device_id);
CREATE INDEX campaign_member_open ON jitrca.campaign_member (campaign_id, rank)
	WHERE state IN ('waiting', 'pending', 'late', 'failed');
