-- What a node has counted in one turn, at most 512 sessions.
--
-- KEYS     the sessions' records
-- ARGV     time to live in ms; then for each session: generation, count, state
-- Returns  one letter for each session:
--            S  stored
--            T  taken over: another claim came since
--            L  lost: the record is older than this owner, or is not there. Nothing is stored before the owner has taken
--               the session again (reassert)
--
-- A commit of which the answer was lost is not sent again: the owner takes the session again, with what it has. So no commit
-- has the generation of a later one, and one that arrives late is refused.
local ttl, answer = ARGV[1], {}
for i, key in ipairs(KEYS) do
  local at = 3 * i - 1
  local owner, generation = tonumber(redis.call('HGET', key, 'generation')) or 0, tonumber(ARGV[at])
  if owner > generation then
    answer[i] = 'T'
  elseif owner < generation then
    answer[i] = 'L'
  else
    answer[i] = 'S'
    redis.call('HSET', key, 'count', ARGV[at + 1], 'state', ARGV[at + 2])
    redis.call('PEXPIRE', key, ttl)
  end
end
return table.concat(answer)
